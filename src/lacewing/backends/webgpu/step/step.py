"""A compiled step: writes the inputs, replays the dispatches in one pass, reads the logits back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from lacewing.backends.batch import Batch, Candidates, Draw, Wanted
from lacewing.backends.gpu.candidates import WANTED
from lacewing.backends.gpu.host_rows import HostRows
from lacewing.backends.gpu.run import Run
from lacewing.backends.gpu.wishes import MOST_BIASES
from lacewing.backends.step import KernelTime, RoutedLayer, Step
from lacewing.backends.webgpu.device.clock import Clock, Timed
from lacewing.backends.webgpu.device.device import Device
from lacewing.backends.webgpu.device.raw import Recorder
from lacewing.backends.webgpu.lowering.compiler import Compiler
from lacewing.backends.webgpu.lowering.dispatches import Dispatch
from lacewing.backends.webgpu.step.argmax import AHEAD, Choosing, Found, device_argmax
from lacewing.backends.webgpu.step.draw import DeviceDraw
from lacewing.backends.webgpu.step.hidden import head_width, read_rows
from lacewing.backends.webgpu.step.routes import RouteWatch
from lacewing.backends.webgpu.step.timing import timed_of
from lacewing.backends.webgpu.step.top_k import DeviceTopK
from lacewing.errors import OptionError
from lacewing.program.operands import View
from lacewing.program.states import PAGE

AT_ONCE, USUAL = 64, 512  # dispatches of a submission, fewer in runs of more tokens; short runs are one submission
ONE_SUBMISSION = 16  # tokens of such a run at most
Plan = list[tuple[Any, Any, int, int, int]]


class WebGPUStep(Step):
    """A program on the device, with its weights, activations and states."""

    most_candidates = WANTED
    runs_ahead = True
    can_profile = True

    def __init__(self, compiler: Compiler):
        super().__init__(compiler.program, compiler.limits)
        self._device, self._inputs = compiler.device, compiler.inputs
        self._step_buffer, self._logits, self.logit_rows = compiler.step_buffer, compiler.logits, compiler.logit_rows
        self._argmax, self._top_k = device_argmax(compiler), DeviceTopK(compiler)
        self._draw = DeviceDraw(compiler, self._top_k)
        self._dispatches, shared = compiler.finish()
        self._arena, self._places = shared[0].buffer, compiler.arena
        self._rows = HostRows(compiler.program, compiler.weights, compiler.arena)
        self.runs_ahead = not self._rows.of_tables  # the host must see a token before its rows can be looked up
        self._watch = RouteWatch(self._device, compiler.routers, self.limits.chunk, shared, self._dispatches)
        self._states = compiler.states
        self._made = [*compiler.made, compiler.step_buffer]
        self.weight_buffers = [buffer for matrix in compiler.matrices.values() for buffer in matrix.buffers]
        self.weight_buffers += [part.buffer for part in compiler.vectors.values()]
        self._readback = self._device.readback(4 * max(self.logit_rows * self.program.vocab_size, head_width(self.program)))
        self._made.append(self._readback.buffer)
        self.buffer_bytes = sum(buffer.size for buffer in self._made)
        self._tables = {index: number for number, index in enumerate(i for i, group in enumerate(self.groups) if group.paged)}
        self._host_tables = np.zeros((len(self._tables), self.limits.rows, self.table_width), np.int32)
        self._plans: dict[Run, Plan] = {}
        self._ahead: dict[tuple[Run, bool], Recorder] = {}  # what the next token of each row will be submitted as; with the choice?
        self._runs = 0  # what ran ahead before the last one is no longer what it was

    @property
    def host_bytes(self) -> int:
        """None of the states and buffers is in this machine's RAM, as far as the driver tells."""
        return 0

    # running

    def _run(self, batch: Batch) -> np.ndarray:
        found = np.empty((len(batch.outputs), self.program.vocab_size), np.float32)
        for first, rows, plan in self._passes(batch):
            self._replay(plan, found[first : first + rows])
        return found

    def _choose(self, batch: Batch, wanted: Sequence[Wanted]) -> list[Candidates]:
        if not wanted or any(each.count > WANTED or len(each.bias or ()) > MOST_BIASES for each in wanted):
            return super()._choose(batch, wanted)
        plain, run = all(each.plain for each in wanted), Run.of(batch, len(wanted))
        if run.single and len(wanted) <= self.logit_rows:
            self._write_inputs(batch, len(wanted), 0)
            self._stop_if_aborted()
            recorder = self._ahead.pop((run, plain), None) or self._record_run(run, plain)
            return self._top_k.run(recorder, wanted, plain, lambda: self._record_ahead(run, plain))
        found: list[Candidates] = []
        for first, rows, plan in self._passes(batch):
            found += self._top_k.run(self._top_k.record(plan, rows if plain else 0), wanted[first : first + rows], plain)
        return found

    def _record_run(self, run: Run, plain: bool) -> Recorder:
        return self._top_k.record(self._plan(run, logits_only=False), run.outputs if plain else 0)

    def _record_ahead(self, run: Run, plain: bool) -> None:
        """Of an answer the next token most often takes the same dispatches; to record them takes as long as the device computes."""
        self._forget_ahead()
        self._ahead[run, plain] = self._record_run(run, plain)

    def _forget_ahead(self) -> None:
        while self._ahead:
            self._ahead.popitem()[1].drop()

    def _passes(self, batch: Batch) -> Iterator[tuple[int, int, Plan]]:
        """First row of logits and number of rows of each pass, with what is left to submit of it; the inputs are written."""
        count = len(batch.outputs)
        for first in range(0, max(1, count), self.logit_rows):
            rows = min(self.logit_rows, count - first)
            self._write_inputs(batch, rows, first)
            run = Run.of(batch, rows)
            yield first, rows, self._plan(run, first > 0) if run.tokens <= ONE_SUBMISSION else self._begun(run, first > 0)

    def greedy(self, batch: Batch, count: int) -> Generator[np.ndarray, None, None]:
        """See `Step.greedy`."""
        if (
            self._rows.of_tables or len(batch.tokens) > self.logit_rows
        ):  # or a large vocabulary, with more rows than its logits have room for
            yield from super().greedy(batch, count)
        else:
            yield from self._fed_back(batch, count, self._argmax)

    def drawn(
        self, batch: Batch, draws: Sequence[Draw], count: int, numbers: Callable[[int], Sequence[float]]
    ) -> Generator[tuple[list[Candidates], np.ndarray], None, None]:
        """See `Step.drawn`."""
        if self._rows.of_tables or len(batch.tokens) > self.logit_rows:
            yield from super().drawn(batch, draws, count, numbers)
        else:
            yield from self._fed_back(batch, count, self._draw.begin(draws, numbers))

    def _fed_back(self, batch: Batch, count: int, choosing: Choosing[Found]) -> Generator[Found, None, None]:
        """Runs whose tokens the device chooses from the run before."""
        rows = len(batch.tokens)
        under_way: deque[tuple[int, int]] = deque()
        mine, done, longest, room = 0, 0, 0, 0
        for index in range(count):
            with self._turn():
                if index == 0:
                    batch = self._greedy_batch(batch, count)
                    self._write_inputs(batch, rows, 0)
                    mine = self._runs
                    longest = int(batch.positions.max())
                    room = self.limits.context - longest
                elif self._runs != mine:
                    raise OptionError("the step has run something else since; ask for greedy tokens anew")
                if index >= room:
                    self._checked(replace(batch, positions=batch.positions + index))  # raises
                while done < min(count, room, index + (1 if self._watch.on else AHEAD)):
                    plan = self._plan(Run.singly(rows, longest + done), False)
                    ring = done % (AHEAD + 1)
                    under_way.append((ring, choosing.submit(plan, rows, ring, done)))
                    done += 1
                found = choosing.take(*under_way.popleft(), rows)
            yield found

    def _greedy_batch(self, batch: Batch, count: int) -> Batch:
        """Checked."""
        outputs = np.arange(len(batch.tokens), dtype=np.int32)
        batch = self._checked(replace(batch, outputs=outputs))
        if len(batch.parts) < len(batch.tokens):
            raise OptionError("greedy tokens are of different rows")
        if count > 1 and batch.units_in is not None and (batch.units_in[:, batch.rows] < 0).any():
            raise OptionError("greedy tokens need two units a row, which change their roles")
        return batch

    def _write_inputs(self, batch: Batch, rows: int, first: int) -> None:
        self._runs += 1
        self._watch.tokens = len(batch.tokens)
        self._device.write(self._step_buffer, 0, self._inputs.encode(batch, rows, first))
        if first == 0:
            self._rows.write(self._device, self._arena, batch)

    def _replay(self, plan: Plan, out: np.ndarray) -> None:
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
        self._stop_if_aborted()

    def _begun(self, run: Run, logits_only: bool) -> Plan:
        """Submits all of a long plan but its last part, which is left: drivers end what keeps a slow GPU busy for seconds.

        Two submissions are under way at a time, so that an abort is heard soon. A part is planned while the one before it runs.
        """
        planned: Iterator[Any] = iter(self._plan(run, logits_only)) if run.single else self._planned(run, logits_only)
        before: int | None = None
        most = max(1, AT_ONCE * USUAL // max(USUAL, run.tokens))
        while len(part := list(islice(planned, most))) == most:
            self._stop_if_aborted()
            recorder = Recorder(self._device.device)
            recorder.dispatches(part)
            index = recorder.submit()
            if before is not None:
                self._device.wait(before)
            before = index
        self._stop_if_aborted()
        return part

    def _plan(self, run: Run, logits_only: bool) -> Plan:
        """What the run replays. Plans of one token a row are few and kept; others are made anew."""
        if run in self._plans and not logits_only:
            return self._plans[run]
        plan = list(self._planned(run, logits_only))
        if run.single and not logits_only:
            self._plans[run] = plan
        return plan

    def _planned(self, run: Run, logits_only: bool) -> Iterator[tuple[Any, Any, int, int, int]]:
        chosen = (d for d in self._dispatches if not logits_only or d.label.startswith("logits"))
        return (d.recorded(grid) for d in chosen if (grid := d.grid(run)) is not None)

    def _hidden(self, view: View, which: np.ndarray) -> np.ndarray:
        return read_rows(self._device, self._readback, self._arena, self._places.view(view), which, view.width)

    # states

    def _grow(self, group: int, count: int) -> None:
        before = [(each, each.buffer) for each in self._states.members(group)]
        try:
            self._states.grow(group, count)
        finally:
            self._bind_again({id(each) for each, buffer in before if each.buffer is not buffer})

    def _bind_again(self, changed: set[int]) -> None:
        """What has other buffers now, and only that."""
        if not changed:
            return
        for dispatch in self._dispatches:
            if any(id(binding) in changed for binding in dispatch.bindings):
                dispatch.bind(self._device)
        self._plans.clear()
        self._forget_ahead()

    def _put_table(self, group: int, row: int, first: int, ids: np.ndarray) -> None:
        if ids.size:
            self._host_tables[self._tables[group], row, first : first + len(ids)] = ids
            word = self._inputs.table(self._tables[group], row) + first
            self._device.write(self._step_buffer, 4 * word, np.ascontiguousarray(ids, np.int32))

    def _copy(self, group: int, pairs: Sequence[tuple[int, int]], positions: int) -> None:
        self._states.copy(group, pairs)

    def _read(self, group: int, ids: Sequence[int]) -> np.ndarray:
        return self._states.read(group, ids)

    def _write(self, group: int, ids: Sequence[int], data: np.ndarray) -> None:
        self._states.write(group, ids, data)

    # watching and timing

    def watch_routes(self, on: bool) -> None:
        with self._lock:
            if not self._closed:
                self._dispatches = self._watch.switch(on)
                self._plans.clear()
                self._forget_ahead()

    def routes(self) -> list[RoutedLayer]:
        with self._lock:
            return [] if self._closed else self._watch.read()

    def profile(self, tokens: int, position: int) -> tuple[KernelTime, ...]:
        """See `Step.profile`."""
        with self._turn():
            ids = np.arange(tokens, dtype=np.int32) * 97 % self.program.vocab_size  # alike, they would choose the same experts
            batch = Batch.of(ids, position, [tokens - 1])
            if self.fixed:
                units = np.array(
                    [[self.sizes[i]] * self.limits.rows for i, group in enumerate(self.groups) if not group.paged], np.int32
                )
                batch = replace(batch, units_in=units, units_out=units + 1)
            with self._own_states(position + tokens):
                batch = self._checked(batch)
                timed = timed_of(self._dispatches, Run.of(batch, 1), self.weight_buffers, self._watch.share_of_experts(tokens))
                if tokens == 1:
                    timed["choice"] = Timed(self._argmax.plan(1))
                with closing(Clock(self._device)) as clock:
                    return clock.kernels(timed, lambda: self._write_inputs(batch, 1, 0))

    @contextmanager
    def _own_states(self, positions: int) -> Iterator[None]:
        """Row 0 has pages that are nobody's, and there are two units more, so that nothing of value is written over."""
        sizes, tables = list(self.sizes), self._host_tables[:, 0].copy()
        pages = -(-positions // PAGE)
        try:
            for index, group in enumerate(self.groups):
                self.grow(index, sizes[index] + (pages if group.paged else 2))
                if group.paged:
                    self.put_table(index, 0, 0, np.arange(sizes[index], sizes[index] + pages))
            yield
        finally:
            for index, number in self._tables.items():
                self._put_table(index, 0, 0, tables[number])
            for index, size in enumerate(sizes):
                self.grow(index, size)

    def copy_rate(self) -> float:
        """See `Step.copy_rate`."""
        with self._turn(), closing(Clock(self._device)) as clock:
            return clock.copy_rate()

    @property
    def device(self) -> Device:
        return self._device

    @property
    def dispatches(self) -> list[Dispatch]:
        return self._dispatches

    def _close(self) -> None:
        self._forget_ahead()
        self._watch.close()
        self._states.close()
        for buffer in (*self._made, *self.weight_buffers):
            self._device.free(buffer)
        self._dispatches, self._plans = [], {}
