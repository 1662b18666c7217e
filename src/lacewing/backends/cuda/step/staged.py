"""A step over a part of a split program: each stage is launched alone, with what comes in before it and what goes out behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np

from lacewing.backends.batch import Batch
from lacewing.backends.cuda.lowering.compiler import Compiler
from lacewing.backends.cuda.lowering.launches import Plan
from lacewing.backends.cuda.lowering.transfer import transferred
from lacewing.backends.cuda.step.replay import Replay
from lacewing.backends.cuda.step.step import CudaStep, comes_again
from lacewing.backends.cuda.weights.upload import put
from lacewing.backends.gpu.run import Run
from lacewing.backends.stages import not_alone
from lacewing.backends.step import SwapIn
from lacewing.program.ops import Logits


class StagedStep(CudaStep):
    """Its `run` is `begin` and the stages."""

    def __init__(self, compiler: Compiler):
        self._transferred = transferred(compiler).buffer
        super().__init__(compiler)
        self._results = self._device.pinned(self._transferred.size if self._transferred is not None else 0)
        self._held = tuple(compiler.held.values())
        self._stages, self._last = compiler.stages, isinstance(compiler.program.ops[-1], Logits)
        self._replay = Replay(self._device, len(self._stages))  # fewer would be gone before they come again
        self._widths = [[view.width for view in stage.sent] for stage in self._stages]
        none = np.empty(0, np.int32)
        self._batch, self._part = Batch(none, none, none, none), Run(0, 0, 1)
        self._logits_found = np.empty((0, self.program.vocab_size), np.float32)

    def _run(self, batch: Batch) -> np.ndarray:
        raise not_alone()

    def _begin(self, batch: Batch) -> None:
        rows = min(self.logit_rows, len(batch.outputs))
        self._batch, self._part = batch, Run.of(batch, rows)
        self._write_inputs(batch, rows, 0)

    def _stage(self, index: int, received: Sequence[np.ndarray]) -> list[np.ndarray]:
        self._stop_if_aborted()
        if received and self._transferred is not None:
            values = np.concatenate([np.ascontiguousarray(each, np.float32).reshape(-1) for each in received])
            self._device.write(self._transferred, 0, values)
        self._launch_stage(index)
        if self._last and index == len(self._stages) - 1:
            self._make_logits()
            return []
        return self._sent(index)

    def logits(self) -> np.ndarray:
        return self._logits_found

    def put_experts(self, moves: Sequence[SwapIn], begin: Callable[[], None]) -> None:
        """See `Step.put_experts`."""
        with self._turn():
            put(self._device, self._held, moves, begin)

    def _close(self) -> None:
        super()._close()
        self._results.close()

    def _launch_stage(self, index: int) -> None:
        if comes_again(self._part):
            self._replay.often((index, self._part), lambda: self._stage_plan(index))
        else:
            self._replay.once(self._stage_plan(index), self._stop_if_aborted)

    def _stage_plan(self, index: int) -> Plan:
        end = self._stages[index + 1].first if index + 1 < len(self._stages) else len(self._launches)
        chosen = self._launches[self._stages[index].first : end]
        return [each.planned(grid) for each in chosen if (grid := each.grid(self._part)) is not None]

    def _sent(self, index: int) -> list[np.ndarray]:
        """What a stage sends to other devices."""
        count, widths = self._part.tokens, self._widths[index]
        nbytes = 4 * count * sum(widths)
        if not nbytes or self._transferred is None:
            return []
        self._results.fetch(self._transferred.address, nbytes)
        self._results.mark()
        values = self._results.wait(nbytes).view(np.float32).copy()
        ends = [count * end for end in accumulate(widths)]
        return [values[end - count * width : end].reshape(count, width) for end, width in zip(ends, widths, strict=True)]

    def _make_logits(self) -> None:
        """As many rows at a time as there is room for; those of the first pass have been launched with the stage."""
        outputs = self._batch.outputs
        self._logits_found = np.empty((len(outputs), self.program.vocab_size), np.float32)
        for first, rows in self._passes(len(outputs)):
            if first:
                self._write_inputs(self._batch, rows, first)
                self._launch(replace(self._part, outputs=rows), "", list, True)
            self._read_logits(self._logits_found[first : first + rows])
