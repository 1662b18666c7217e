"""The largest logits of a step, found on the device: a sampler seldom needs more, and a row of them is long."""

from __future__ import annotations

from typing import Any

import numpy as np

from lacewing.backends.base import Candidates
from lacewing.backends.webgpu.device.device import Slice
from lacewing.backends.webgpu.device.raw import Recorded, Recorder
from lacewing.backends.webgpu.kernels import shader
from lacewing.backends.webgpu.lowering.compiler import Compiler
from lacewing.backends.webgpu.step.argmax import BROKEN, NOTHING, broken_logits

WANTED = 64
EACH = 8  # logits of a thread
PART = 256 * EACH


class Finder:
    """The dispatches after the logits that find the WANTED largest, and their way to the host."""

    def __init__(self, compiler: Compiler):
        self.device, vocabulary = compiler.device, compiler.program.vocab_size
        self.parts = -(-vocabulary // PART)
        best = compiler.own(8 * self.parts * WANTED, "the largest logits of the parts")
        self._totals = compiler.own(8 * self.parts, "the sums of the parts")
        self._chosen = compiler.own(8 * WANTED, "the largest logits")
        self._owners: list[Any] = []
        self._plan: list[tuple[Any, Any, int, int, int]] = []
        self._add("best_parts", [compiler.logits, best, self._totals], self.parts, each=EACH, vocabulary=vocabulary)
        # levels of at most 32 values a thread, whose taken ones are bits of a word
        count, source = self.parts * WANTED, best
        while count > 32 * 256:
            groups = -(-count // (32 * 256))
            target = compiler.own(8 * groups * WANTED, "the largest logits of groups of parts")
            for group in range(groups):
                part = min(32 * 256, count - group * 32 * 256)
                taken = Slice(source.buffer, 8 * group * 32 * 256, 8 * part)
                self._add("best_all", [taken, Slice(target.buffer, 8 * group * WANTED, 8 * WANTED)], 1, each=32, count=part)
            count, source = groups * WANTED, target
        self._add("best_all", [source, self._chosen], 1, each=-(-count // 256), count=count)
        self._readback = self.device.readback(8 * (WANTED + self.parts))
        compiler.made.append(self._readback.buffer)

    def _add(self, kernel: str, slices: list[Slice], workgroups: int, **constants: int) -> None:
        pipeline = self.device.pipeline(shader(kernel, wanted=WANTED, **constants), kernel)
        group = self.device.bind(pipeline, slices)
        self._owners.append((pipeline, group))
        self._plan.append((pipeline.handle, group._internal, workgroups, 1, 1))

    def run(self, plan: Recorded) -> Candidates:
        """Run `plan` and find the largest of its first row of logits. Raises NumericError for broken ones."""
        recorder, size = Recorder(self.device.device), 8 * (WANTED + self.parts)
        recorder.dispatches([*plan, *self._plan])
        self._readback.copy(recorder, self._chosen.buffer, 0, 8 * WANTED)
        self._readback.copy(recorder, self._totals.buffer, 0, 8 * self.parts, 8 * WANTED)
        with self._readback.mapped(size, recorder.submit()) as found:
            words = np.frombuffer(found, np.uint32).copy().reshape(-1, 2)
        logits, ids = words[:WANTED, 0].view(np.float32), words[:WANTED, 1]
        there = ids < NOTHING  # a small vocabulary has fewer
        if (ids == BROKEN).any() or not there.any():
            raise broken_logits()
        largest, sums = (words[WANTED:, index].copy().view(np.float32).astype(np.float64) for index in (0, 1))
        log_sum = float(largest.max() + np.log((sums * np.exp(largest - largest.max())).sum()))
        return Candidates(ids[there].astype(np.int64), logits[there], log_sum)
