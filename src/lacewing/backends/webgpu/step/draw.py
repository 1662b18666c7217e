"""Tokens drawn on the device as a sampler will: the next step runs with them, while the host looks whether it draws the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lacewing.backends.batch import Candidates, Draw, Wanted
from lacewing.backends.gpu.candidates import WANTED, candidates
from lacewing.backends.gpu.draws import WORDS, draw_options, put_numbers
from lacewing.backends.webgpu.device.device import Slice
from lacewing.backends.webgpu.device.raw import Recorded, Recorder
from lacewing.backends.webgpu.kernels import shader
from lacewing.backends.webgpu.lowering.compiler import Compiler
from lacewing.backends.webgpu.step.argmax import AHEAD
from lacewing.backends.webgpu.step.top_k import DeviceTopK, row_bytes


def draw_bytes(vocab_size: int, rows: int) -> int:
    """What it takes on the device."""
    return 4 * WORDS * rows + (AHEAD + 1) * (row_bytes(vocab_size) + 4) * rows


class DeviceDraw:
    """The dispatches after the logits that draw a token of each row, and the ring that brings candidates and ids to the host."""

    def __init__(self, compiler: Compiler, top_k: DeviceTopK):
        self.device, self.top_k, self.step_buffer = compiler.device, top_k, compiler.step_buffer
        self.chosen = 4 * compiler.inputs.chosen
        rows, vocabulary = most_rows(compiler.logit_rows, compiler.limits.rows), compiler.program.vocab_size
        self.options = compiler.own(4 * WORDS * rows, "how tokens are drawn")
        self.pipeline = self.device.pipeline(shader("draw", wanted=WANTED, vocabulary=vocabulary, inputs=compiler.inputs), "draw")
        step = Slice(self.step_buffer, 0, self.step_buffer.size)
        self.group = self.device.bind(self.pipeline, [top_k.chosen, self.options, step])
        self.ring = tuple(self.device.readback((top_k.row_bytes + 4) * rows) for _ in range(AHEAD + 1))
        compiler.made += [place.buffer for place in self.ring]

    def begin(self, draws: Sequence[Draw], numbers: Callable[[int], Sequence[float]]) -> Drawing:
        """See `Step.drawn`."""
        return Drawing(self, draws, numbers)


class Drawing:
    """Tokens of some rows, one after another, drawn in one way each."""

    def __init__(self, device: DeviceDraw, draws: Sequence[Draw], numbers: Callable[[int], Sequence[float]]):
        self._on, self._numbers = device, numbers
        self._wanted = [Wanted(each.count) for each in draws]
        self._options = draw_options(draws)

    def submit(self, plan: Recorded, rows: int, ring: int, number: int) -> int:
        """Run `plan` and draw the token after `number` others; what is found goes to place `ring`. The number of the submission."""
        on, place = self._on, self._on.ring[ring]
        put_numbers(self._options, self._numbers(number))
        on.device.write(on.options.buffer, on.options.offset, self._options)
        recorder, drawn = Recorder(on.device.device), (on.pipeline.handle, on.group._internal, rows, 1, 1)
        recorder.dispatches([*plan, *on.top_k.plan(rows), drawn])
        place.copy(recorder, on.step_buffer, on.chosen, 4 * rows, at=on.top_k.row_bytes * rows)
        on.top_k.copy(recorder, place, rows)
        index = recorder.submit()
        place.start((on.top_k.row_bytes + 4) * rows)
        return index

    def take(self, ring: int, index: int, rows: int) -> tuple[list[Candidates], np.ndarray]:
        """The candidates and the drawn ids at place `ring`, int64 (rows,). Raises NumericError for broken logits."""
        place = self._on.ring[ring]
        try:
            words = np.frombuffer(place.wait(index, (self._on.top_k.row_bytes + 4) * rows), np.uint32).copy()
        finally:
            place.release()
        return candidates(words[:-rows], self._wanted), words[-rows:].astype(np.int64)


def most_rows(logit_rows: int, rows: int) -> int:
    """Rows whose tokens are drawn in a run at most."""
    return min(logit_rows, rows)
