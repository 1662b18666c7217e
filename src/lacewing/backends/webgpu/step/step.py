"""A compiled step: writes the inputs, replays the dispatches in one pass, reads the logits back."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from lacewing.backends.arguments import check_run
from lacewing.backends.base import Candidates, KernelTime, RoutedLayer
from lacewing.backends.webgpu.device.clock import Clock, Timed
from lacewing.backends.webgpu.device.device import Device
from lacewing.backends.webgpu.device.raw import Recorder
from lacewing.backends.webgpu.lowering.compiler import HEADER_WORDS, Compiler
from lacewing.backends.webgpu.lowering.dispatches import Dispatch, Run
from lacewing.backends.webgpu.state.slots import Slots
from lacewing.backends.webgpu.step.argmax import AHEAD, feedback
from lacewing.backends.webgpu.step.routes import RouteWatch
from lacewing.backends.webgpu.step.top_k import WANTED, Finder
from lacewing.errors import OptionError

FEW = 16  # tokens of a run that is one submission whatever it takes
AT_ONCE = 64  # dispatches of a submission of more tokens


class WebGPUStep:
    """A program on the device, with its weights, activations, keys and values.

    `notices`: what a person should know, such as weights that the device keeps as another quant.
    """

    notices: tuple[str, ...] = ()
    most_candidates = WANTED

    def __init__(self, compiler: Compiler):
        self.limits, self._program, self._device = compiler.limits, compiler.program, compiler.device
        self._step_buffer, self._logits, self.logit_rows = compiler.step_buffer, compiler.logits, compiler.logit_rows
        self._feedback, self._finder = feedback(compiler), Finder(compiler)
        self._dispatches, shared = compiler.finish()
        self._watch = RouteWatch(self._device, compiler.routers, self.limits.chunk, shared, self._dispatches)
        self._made = [*compiler.made, compiler.step_buffer]
        self._made += [part.buffer for part in compiler.keys_values]
        self.weight_buffers = [buffer for matrix in compiler.matrices.values() for buffer in matrix.buffers]
        self.weight_buffers += [part.buffer for part in compiler.vectors.values()]
        self.kv_bytes = sum(part.size for part in compiler.keys_values)
        self.buffer_bytes = sum(buffer.size for buffer in self._made) - self.kv_bytes
        self._readback = self._device.readback(4 * self.logit_rows * compiler.program.vocab_size)
        self._made.append(self._readback.buffer)
        self._slots = Slots(self._device, compiler.program, compiler.limits, compiler.keys_values)
        self._plans: dict[Run, list[tuple[Any, Any, int, int, int]]] = {}
        self._lock, self._closed, self._turns = threading.Lock(), False, 0

    def run(self, tokens: np.ndarray, slots: np.ndarray, positions: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Logits float32 (R, V) of the rows `outputs`; see `backends.base.Step`."""
        with self._turn():
            tokens, slots, positions, outputs = check_run(tokens, slots, positions, outputs, self._program.vocab_size, self.limits)
            found = np.empty((len(outputs), self._program.vocab_size), np.float32)
            contiguous = bool((slots == slots[0]).all() and (np.diff(positions) == 1).all())
            kv_len = 1 << int(positions.max()).bit_length()
            for first in range(0, max(1, len(outputs)), self.logit_rows):
                rows = min(self.logit_rows, len(outputs) - first)
                self._write((tokens, slots, positions, outputs), rows, first)
                run = Run(len(tokens), rows, contiguous, kv_len)
                self._replay(run, found[first : first + rows], logits_only=first > 0)
            return found

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One thread at a time; what ran ahead before is no longer what it was."""
        with self._lock:
            if self._closed:
                raise OptionError("the step has been closed")
            self._turns += 1
            yield

    def greedy(self, token: int, slot: int, position: int, count: int) -> Iterator[int]:
        """See `backends.base.FeedsBack`."""
        count = min(count, self.limits.context - position)
        under_way: deque[tuple[int, int]] = deque()
        turn, done = 0, 0
        for index in range(count):
            with self._turn():
                if index == 0:
                    tokens, slots, positions, outputs = (np.array([value], np.int32) for value in (token, slot, position, 0))
                    vocabulary = self._program.vocab_size
                    self._write(check_run(tokens, slots, positions, outputs, vocabulary, self.limits), 1, 0)
                elif self._turns != turn + 1:
                    raise OptionError("the step has run something else since; ask for greedy tokens anew")
                turn = self._turns
                while done < min(count, index + (1 if self._watch.on else AHEAD)):
                    plan = self._plan(Run(1, 1, True, 1 << (position + done).bit_length()), False)
                    ring = done % len(self._feedback.ring)
                    under_way.append((ring, self._feedback.submit(plan, ring)))
                    done += 1
                chosen = self._feedback.take(*under_way.popleft())
            yield chosen

    def candidates(self, token: int, slot: int, position: int) -> Candidates:
        """See `backends.base.FindsCandidates`."""
        with self._turn():
            tokens, slots, positions, outputs = (np.array([value], np.int32) for value in (token, slot, position, 0))
            vocabulary = self._program.vocab_size
            self._write(check_run(tokens, slots, positions, outputs, vocabulary, self.limits), 1, 0)
            return self._finder.run(self._plan(Run(1, 1, True, 1 << position.bit_length()), False))

    def profile(self, tokens: int, position: int) -> tuple[KernelTime, ...]:
        """See `backends.base.Profiles`."""
        with self._turn():
            places = np.arange(position, position + tokens, dtype=np.int32)
            ids = np.arange(tokens, dtype=np.int32) * 97 % self._program.vocab_size  # alike, they would choose the same experts
            inputs = (ids, np.zeros(tokens, np.int32), places, np.array([tokens - 1], np.int32))
            inputs = check_run(*inputs, self._program.vocab_size, self.limits)
            run = Run(tokens, 1, True, 1 << int(places[-1]).bit_length())
            clock = Clock(self._device)
            try:
                return clock.kernels(self._timed(run), lambda: self._write(inputs, 1, 0))
            finally:
                clock.close()

    def _timed(self, run: Run) -> dict[str, Timed]:
        """What a run replays, by kernels. An embedding reads a row a token, experts those that are chosen."""
        weights, chosen = {id(buffer) for buffer in self.weight_buffers}, self._watch.share_of_experts(run.tokens)
        found: dict[str, Timed] = {}
        for each in self._dispatches:
            grid = each.grid(run)
            if grid is not None:
                one = found.setdefault(each.label, Timed())
                share = 0.0 if each.label == "embed" else chosen if each.label.startswith("expert_") else 1.0
                one.nbytes += int(share * sum(part.size for part in each.bindings if id(part.buffer) in weights))
                one.recorded.append((each.pipeline, each.group, *grid))
        if run.tokens == 1:
            found["choice"] = Timed(list(self._feedback.plan))
        return found

    def copy_rate(self) -> float:
        """See `backends.base.Profiles`."""
        with self._turn():
            clock = Clock(self._device)
            try:
                return clock.copy_rate()
            finally:
                clock.close()

    def _write(self, inputs: tuple[np.ndarray, ...], rows: int, first: int) -> None:
        words = np.zeros(HEADER_WORDS + 4 * self.limits.chunk, np.int32)
        words[:3] = len(inputs[0]), rows, first
        self._watch.tokens = len(inputs[0])
        for index, values in enumerate(inputs):
            start = HEADER_WORDS + index * self.limits.chunk
            words[start : start + len(values)] = values
        self._device.write(self._step_buffer, 0, words)

    def _replay(self, run: Run, out: np.ndarray, logits_only: bool) -> None:
        plan = self._plan(run, logits_only)
        if run.tokens > FEW:
            plan = self._begun(plan)
        recorder = Recorder(self._device.device)
        recorder.dispatches(plan)
        if out.size:
            self._readback.copy(recorder, self._logits.buffer, 0, out.nbytes)
        index = recorder.submit()
        if out.size:
            with self._readback.mapped(out.nbytes, index) as found:
                out.reshape(-1)[:] = np.frombuffer(found, np.float32)
        else:
            self._device.wait(index)  # else nobody could stop a long prompt, nor tell how far it is

    def _begun(self, plan: list[tuple[Any, Any, int, int, int]]) -> list[tuple[Any, Any, int, int, int]]:
        """Submits all of a long plan but its last part, which is left: drivers end what keeps a slow GPU busy for seconds."""
        while len(plan) > AT_ONCE:
            recorder = Recorder(self._device.device)
            recorder.dispatches(plan[:AT_ONCE])
            recorder.submit()
            plan = plan[AT_ONCE:]
        return plan

    def _plan(self, run: Run, logits_only: bool) -> list[tuple[Any, Any, int, int, int]]:
        """What the run replays. Plans of one token are few and kept; others are made anew."""
        if run in self._plans and not logits_only:
            return self._plans[run]
        chosen = [d for d in self._dispatches if not logits_only or d.label.startswith("logits")]
        plan = [(d.pipeline, d.group, *grid) for d in chosen if (grid := d.grid(run)) is not None]
        if run.tokens == 1 and not logits_only:
            self._plans[run] = plan
        return plan

    @property
    def device(self) -> Device:
        return self._device

    @property
    def dispatches(self) -> list[Dispatch]:
        return self._dispatches

    def rebind(self) -> None:
        """Weights on the device do not move with those of the host."""

    def watch_routes(self, on: bool) -> None:
        with self._lock:
            if not self._closed:
                self._dispatches = self._watch.switch(on)
                self._plans.clear()

    def routes(self) -> list[RoutedLayer]:
        with self._lock:
            return [] if self._closed else self._watch.read()

    def read_slot(self, slot: int, count: int) -> np.ndarray:
        """See `backends.base.KeepsSlots`."""
        with self._turn():
            return self._slots.read(slot, count)

    def write_slot(self, slot: int, count: int, data: np.ndarray) -> None:
        with self._turn():
            self._slots.write(slot, count, data)

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                self._watch.close()
                for buffer in (*self._made, *self.weight_buffers):
                    self._device.free(buffer)
                self._dispatches, self._plans = [], {}
