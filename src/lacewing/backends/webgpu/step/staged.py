"""A step over a part of a split program: each stage is a submission, with what comes in before it and what goes out behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np

from lacewing.backends.batch import Batch
from lacewing.backends.gpu.run import Run
from lacewing.backends.stages import not_alone
from lacewing.backends.step import SwapIn
from lacewing.backends.webgpu.device.raw import Recorder
from lacewing.backends.webgpu.lowering.compiler import Compiler
from lacewing.backends.webgpu.lowering.transfer import transferred
from lacewing.backends.webgpu.step.step import WebGPUStep
from lacewing.backends.webgpu.weights.stacks import put
from lacewing.program.ops import Logits


class StagedStep(WebGPUStep):
    """Its `run` is `begin` and the stages."""

    def __init__(self, compiler: Compiler):
        self._transferred = transferred(compiler).buffer
        super().__init__(compiler)
        self._results = self._device.readback(self._transferred.size)
        self._made.append(self._results.buffer)
        self._held = tuple(compiler.held.values())
        self._stages, self._last = compiler.stages, isinstance(compiler.program.ops[-1], Logits)
        self._widths = [[view.width for view in stage.sent] for stage in self._stages]
        self._stage_plans: dict[tuple[int, Run], list[tuple[Any, Any, int, int, int]]] = {}
        self._recorded: dict[int, Recorder] = {}  # of the run that is under way: stages that come soon
        self._unread: int | None = None  # the last submission of the run before, if nothing was read of it
        none = np.empty(0, np.int32)
        self._batch, self._part = Batch(none, none, none, none), Run(0, 0, 1)
        self._found = np.empty((0, self.program.vocab_size), np.float32)

    def _run(self, batch: Batch) -> np.ndarray:
        raise not_alone()

    def _begin(self, batch: Batch) -> None:
        rows = min(self.logit_rows, len(batch.outputs))
        self._batch, self._part = batch, Run.of(batch, rows)
        self._forget_recorded()
        self._write_inputs(batch, rows, 0)

    def _stage(self, index: int, received: Sequence[np.ndarray]) -> list[np.ndarray]:
        self._stop_if_aborted()
        if received:
            values = np.concatenate([np.ascontiguousarray(each, np.float32).reshape(-1) for each in received])
            self._device.write(self._transferred, 0, values)
        if self._makes_logits(index):
            self._make_logits(self._stage_plan(index))
            return []
        return self._exchange(index)

    def logits(self) -> np.ndarray:
        return self._found

    def put_experts(self, moves: Sequence[SwapIn], begin: Callable[[], None]) -> None:
        """See `Step.put_experts`."""
        with self._turn():
            put(self._device, self._held, moves, begin)

    def watch_routes(self, on: bool) -> None:
        super().watch_routes(on)
        self._stage_plans.clear()

    def _bind_again(self, changed: set[int]) -> None:
        super()._bind_again(changed)
        self._stage_plans.clear()
        self._forget_recorded()

    def _close(self) -> None:
        super()._close()
        self._forget_recorded()

    def _forget_recorded(self) -> None:
        """A run that was broken off leaves some."""
        while self._recorded:
            self._recorded.popitem()[1].drop()

    def _makes_logits(self, index: int) -> bool:
        return self._last and index == len(self._stages) - 1

    def _stage_plan(self, index: int) -> list[tuple[Any, Any, int, int, int]]:
        """What a stage replays; those of one token a row are kept."""
        key = index, self._part
        if key in self._stage_plans:
            return self._stage_plans[key]
        end = self._stages[index + 1].first if index + 1 < len(self._stages) else len(self._dispatches)
        chosen = self._dispatches[self._stages[index].first : end]
        plan = [d.recorded(grid) for d in chosen if (grid := d.grid(self._part)) is not None]
        if self._part.single:
            self._stage_plans[key] = plan
        return plan

    def _exchange(self, index: int) -> list[np.ndarray]:
        """Run a stage; what it sends. While the device computes, what comes next is recorded."""
        count, widths = self._part.tokens, self._widths[index]
        recorder = self._recorded.pop(index, None) or self._record(index)
        self._results.release()  # somebody who was interrupted may have left them mapped
        submission, nbytes = recorder.submit(), 4 * count * sum(widths)
        if not nbytes:
            return []
        self._results.start(nbytes)
        try:
            self._record_next(index)
            values = np.frombuffer(self._results.wait(submission, nbytes, eager=count == 1), np.float32).copy()
        finally:
            self._results.release()
        ends = [count * end for end in accumulate(widths)]
        return [values[end - count * width : end].reshape(count, width) for end, width in zip(ends, widths, strict=True)]

    def _record(self, index: int) -> Recorder:
        recorder, nbytes = Recorder(self._device.device), 4 * self._part.tokens * sum(self._widths[index])
        recorder.dispatches(self._stage_plan(index))
        if nbytes:
            recorder.copy(self._transferred, 0, self._results.buffer, 0, nbytes)
        recorder.finish()
        return recorder

    def _record_next(self, index: int) -> None:
        """The stages up to the next one that is waited for."""
        for following in range(index + 1, len(self._stages)):
            if self._makes_logits(following):
                return
            self._recorded[following] = self._record(following)
            if self._widths[following]:
                return

    def _make_logits(self, plan: list[tuple[Any, Any, int, int, int]]) -> None:
        """As many rows at a time as there is room for; the first with all else of the stage."""
        outputs, vocabulary = self._batch.outputs, self.program.vocab_size
        self._found = np.empty((len(outputs), vocabulary), np.float32)
        for first in range(0, max(1, len(outputs)), self.logit_rows):
            rows = min(self.logit_rows, len(outputs) - first)
            if first:
                self._write_inputs(self._batch, rows, first)
                plan = self._plan(replace(self._part, outputs=rows), True)
            recorder, nbytes = Recorder(self._device.device), 4 * rows * vocabulary
            recorder.dispatches(plan)
            if nbytes:
                self._readback.copy(recorder, self._logits.buffer, 0, nbytes)
            submission = recorder.submit()
            if nbytes:
                with self._readback.mapped(nbytes, submission) as values:
                    self._found[first : first + rows] = np.frombuffer(values, np.float32).reshape(rows, vocabulary)
            else:
                self._fall_behind(submission)

    def _fall_behind(self, submission: int) -> None:
        """Nothing is read of it: let other devices begin the next part of a prompt, and only that one."""
        if self._unread is not None:
            self._device.wait(self._unread)
        self._unread = submission
