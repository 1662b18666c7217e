"""The largest logits of a step, found on the device: a sampler seldom needs more, and rows of them are long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lacewing.backends.batch import Candidates, Wanted
from lacewing.backends.gpu.candidates import WANTED, candidates
from lacewing.backends.gpu.wishes import MOST_BIASES, WishBuffer, wish_bytes
from lacewing.backends.webgpu.device.device import Slice
from lacewing.backends.webgpu.device.raw import Readback, Recorded, Recorder
from lacewing.backends.webgpu.kernels import shader
from lacewing.backends.webgpu.lowering.compiler import Compiler

EACH = 8  # logits of a thread
PART = 256 * EACH
LEVEL = 32 * 256  # values of a workgroup that joins parts; the taken ones of a thread are bits of a word


def row_bytes(vocab_size: int) -> int:
    """What goes to the host of a row."""
    return 8 * (WANTED + -(-vocab_size // PART))


def top_k_bytes(vocab_size: int, rows: int) -> int:
    """What it takes on the device."""
    parts = -(-vocab_size // PART)
    levels, count = parts * WANTED, parts * WANTED
    while count > LEVEL:
        count = -(-count // LEVEL) * WANTED
        levels += count
    return 8 * rows * (levels + 2 * parts + 2 * WANTED) + wish_bytes(vocab_size, rows)


class DeviceTopK:
    """The dispatches after the logits that find the WANTED largest of each row, and their way to the host.

    Where masks and biases are wanted, another kernel looks through the logits, and masks may be made while these are computed.
    """

    def __init__(self, compiler: Compiler):
        self.device, vocabulary, rows = compiler.device, compiler.program.vocab_size, compiler.logit_rows
        self.parts = -(-vocabulary // PART)
        best = compiler.own(8 * self.parts * WANTED * rows, "the largest logits of the parts")
        self._totals = compiler.own(8 * self.parts * rows, "the sums of the parts")
        self.row_bytes = row_bytes(vocabulary)
        room = compiler.own(wish_bytes(vocabulary, rows), "masks and biases")
        self._wishes = WishBuffer(self.device, room.buffer, room.offset, vocabulary, rows)
        self._kernels: list[tuple[Any, Any, int]] = []
        logits, constants = [compiler.logits, best, self._totals], {"each": EACH, "vocabulary": vocabulary, "parts": self.parts}
        self._add("best_parts", logits, self.parts, **constants, stride=0, biases=0)
        self._add("best_parts", [*logits, room], self.parts, **constants, stride=self._wishes.stride, biases=MOST_BIASES)
        self._wishing = self._kernels.pop()
        count, source = self.parts * WANTED, best
        while count > LEVEL:
            groups = -(-count // LEVEL)
            target = compiler.own(8 * groups * WANTED * rows, "the largest logits of groups of parts")
            self._add("best_all", [source, target], groups, each=LEVEL // 256, count=count)
            count, source = groups * WANTED, target
        self.chosen = compiler.own(8 * WANTED * rows, "the largest logits")
        self._add("best_all", [source, self.chosen], 1, each=-(-count // 256), count=count)
        self._readback = self.device.readback(self.row_bytes * rows)
        compiler.made.append(self._readback.buffer)

    def _add(self, kernel: str, slices: Sequence[Slice], workgroups: int, **constants: int) -> None:
        pipeline = self.device.pipeline(shader(kernel, wanted=WANTED, **constants), kernel)
        self._kernels.append((pipeline, self.device.bind(pipeline, slices), workgroups))

    def plan(self, rows: int, plain: bool = True) -> list[tuple[Any, Any, int, int, int]]:
        """The choice among so many rows of logits; `plain`: without masks and biases."""
        kernels = self._kernels if plain else [self._wishing, *self._kernels[1:]]
        return [(pipeline.handle, group._internal, workgroups, rows, 1) for pipeline, group, workgroups in kernels]

    def record(self, plan: Recorded, rows: int, plain: bool = True) -> Recorder:
        """`plan` and, if `rows`, the choice among its rows of logits, to be submitted by `run`."""
        recorder = Recorder(self.device.device)
        recorder.dispatches([*plan, *(self.plan(rows, plain) if rows else ())])
        if rows:
            self.copy(recorder, self._readback, rows)
        recorder.finish()
        return recorder

    def copy(self, recorder: Recorder, readback: Readback, rows: int) -> None:
        """Record the way of what was found to the host, `row_bytes` a row."""
        recorder.copy(self.chosen.buffer, 0, readback.buffer, 0, 8 * WANTED * rows)
        recorder.copy(self._totals.buffer, 0, readback.buffer, 8 * WANTED * rows, 8 * self.parts * rows)

    def run(
        self, recorder: Recorder, wanted: Sequence[Wanted], plain: bool, meanwhile: Callable[[], None] = lambda: None
    ) -> list[Candidates]:
        """Submit what `record` made, without the choice unless all is `plain`, and find what is wanted of each row.

        `meanwhile` is called while the device computes. Raises NumericError for broken logits, OptionError for a mask that allows
        nothing or has another size.
        """
        rows, readback = len(wanted), self._readback
        readback.release()  # somebody who was interrupted may have left it mapped
        index, size = recorder.submit(), self.row_bytes * rows
        if not plain:
            meanwhile()
            wanted = [each.settled() for each in wanted]
            self._wishes.write(wanted)
            index = self.record((), rows, plain=False).submit()
        readback.start(size)
        try:
            if plain:
                meanwhile()
            words = np.frombuffer(readback.wait(index, size, eager=True), np.uint32).copy()
        finally:
            readback.release()
        return candidates(words, wanted)
