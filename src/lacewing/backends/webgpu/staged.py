"""A step over a part of a split program: each stage is a submission, with what comes in before it and what goes out behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lacewing.backends.arguments import check_run
from lacewing.backends.hot import Move
from lacewing.backends.staged import not_alone
from lacewing.backends.webgpu.compiler import Compiler
from lacewing.backends.webgpu.exchange import put
from lacewing.backends.webgpu.lowering.handing import handed
from lacewing.backends.webgpu.plan import Run
from lacewing.backends.webgpu.raw import Readback, Recorder
from lacewing.backends.webgpu.step import WebGPUStep
from lacewing.program.ops import Logits, View


class StagedStep(WebGPUStep):
    """See `backends.staged.Staged`."""

    def __init__(self, compiler: Compiler):
        self._handed = handed(compiler).buffer
        super().__init__(compiler)
        self._results = self._device.readback(self._handed.size)
        self._made.append(self._results.buffer)
        self._held = tuple(compiler.held.values())
        self._stages, self._last = compiler.stages, isinstance(compiler.program.ops[-1], Logits)
        self._stage_plans: dict[tuple[int, Run], list[tuple[Any, Any, int, int, int]]] = {}
        none = np.empty(0, np.int32)
        self._inputs, self._run = (none, none, none, none), Run(0, 0, True, 1)
        self._found = np.empty((0, self._program.vocab_size), np.float32)

    def run(self, tokens: np.ndarray, slots: np.ndarray, positions: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        raise not_alone()

    def begin(self, tokens: np.ndarray, slots: np.ndarray, positions: np.ndarray, outputs: np.ndarray) -> None:
        with self._turn():
            self._inputs = check_run(tokens, slots, positions, outputs, self._program.vocab_size, self.limits)
            tokens, slots, positions, outputs = self._inputs
            straight = bool((slots == slots[0]).all() and (np.diff(positions) == 1).all())
            rows = min(self.logit_rows, len(outputs))
            self._run = Run(len(tokens), rows, straight, 1 << int(positions.max()).bit_length())
            self._write(self._inputs, rows, 0)

    def stage(self, index: int, received: Sequence[np.ndarray]) -> list[np.ndarray]:
        with self._turn():
            stage, count = self._stages[index], self._run.tokens
            if received:
                values = np.concatenate([np.ascontiguousarray(each, np.float32).reshape(-1) for each in received])
                self._device.write(self._handed, 0, values)
            plan = self._stage_plan(index)
            if index == len(self._stages) - 1 and self._last:
                self._make_logits(plan)
                return []
            return self._exchange(plan, stage.sent, count)

    def logits(self) -> np.ndarray:
        return self._found

    def put_experts(self, moves: Sequence[Move], begin: Callable[[], None]) -> None:
        """See `backends.hot.TakesExperts`."""
        with self._turn():
            put(self._device, self._held, moves, begin)

    def watch_routes(self, on: bool) -> None:
        super().watch_routes(on)
        self._stage_plans.clear()

    def _stage_plan(self, index: int) -> list[tuple[Any, Any, int, int, int]]:
        """What a stage replays; those of one token are kept."""
        key = index, self._run
        if key in self._stage_plans:
            return self._stage_plans[key]
        end = self._stages[index + 1].first if index + 1 < len(self._stages) else len(self._dispatches)
        chosen = self._dispatches[self._stages[index].first : end]
        plan = [(d.pipeline, d.group, *grid) for d in chosen if (grid := d.grid(self._run)) is not None]
        if self._run.tokens == 1:
            self._stage_plans[key] = plan
        return plan

    def _exchange(self, plan: list[tuple[Any, Any, int, int, int]], sent: Sequence[View], count: int) -> list[np.ndarray]:
        recorder, nbytes = Recorder(self._device.device), 4 * count * sum(view.width for view in sent)
        recorder.dispatches(plan)
        if nbytes:
            self._results.copy(recorder, self._handed, 0, nbytes)
        values = _read(self._results, recorder.submit(), nbytes)
        ends = np.cumsum([count * view.width for view in sent])[:-1]
        return [part.reshape(count, -1) for part in np.split(values, ends)] if sent else []

    def _make_logits(self, plan: list[tuple[Any, Any, int, int, int]]) -> None:
        """As many rows at a time as there is room for; the first with all else of the stage."""
        outputs, vocabulary = self._inputs[3], self._program.vocab_size
        self._found = np.empty((len(outputs), vocabulary), np.float32)
        for first in range(0, max(1, len(outputs)), self.logit_rows):
            rows = min(self.logit_rows, len(outputs) - first)
            if first:
                self._write(self._inputs, rows, first)
                plan = self._plan(Run(self._run.tokens, rows, self._run.straight, self._run.seen), True)
            recorder, nbytes = Recorder(self._device.device), 4 * rows * vocabulary
            recorder.dispatches(plan)
            if nbytes:
                self._readback.copy(recorder, self._logits.buffer, 0, nbytes)
            self._found[first : first + rows] = _read(self._readback, recorder.submit(), nbytes).reshape(rows, vocabulary)


def _read(results: Readback, index: int, nbytes: int) -> np.ndarray:
    """Float32: a copy of the first `nbytes`, when submission `index` is done; nothing to read is not waited for."""
    if not nbytes:
        return np.empty(0, np.float32)
    with results.mapped(nbytes, index) as found:
        return np.frombuffer(found, np.float32).copy()
