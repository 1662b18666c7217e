"""Greedy choice on the device: next tokens are fed back without the host, and steps run ahead of what is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from lacewing.backends.gpu.candidates import NOTHING, broken_logits
from lacewing.backends.webgpu.device.device import Device, Slice
from lacewing.backends.webgpu.device.raw import Readback, Recorded, Recorder
from lacewing.backends.webgpu.kernels import shader
from lacewing.backends.webgpu.lowering.compiler import Compiler

PART = 2048  # logits that a workgroup looks through
AHEAD = 2  # submissions under way
Found = TypeVar("Found", covariant=True)


class Choosing(Protocol[Found]):
    """What chooses the next tokens of a run on the device, and brings what it found to one of `AHEAD` + 1 places of a ring."""

    def submit(self, plan: Recorded, rows: int, ring: int, number: int) -> int: ...

    def take(self, ring: int, index: int, rows: int) -> Found: ...


@dataclass(frozen=True)
class DeviceArgmax:
    """The dispatches after the logits, and the ring that brings ids to the host."""

    device: Device
    kernels: tuple[Any, ...]  # pipeline and bind group of each
    parts: int
    step_buffer: Any
    chosen: int  # byte of the step buffer where the ids stand
    ring: tuple[Readback, ...]

    def plan(self, rows: int) -> list[tuple[Any, Any, int, int, int]]:
        """The choice for so many rows of logits."""
        grids = ((self.parts, rows, 1), (rows, 1, 1))
        return [(pipeline.handle, group._internal, *grid) for (pipeline, group), grid in zip(self.kernels, grids, strict=True)]

    def submit(self, plan: Recorded, rows: int, ring: int, number: int) -> int:
        """Run `plan` and the choice, after `number` others; the ids go to place `ring`. The number of the submission."""
        recorder, place = Recorder(self.device.device), self.ring[ring]
        recorder.dispatches([*plan, *self.plan(rows)])
        place.copy(recorder, self.step_buffer, self.chosen, 4 * rows)
        index = recorder.submit()
        place.start(4 * rows)
        return index

    def take(self, ring: int, index: int, rows: int) -> np.ndarray:
        """The ids at place `ring`, int64 (rows,). Raises NumericError for broken logits."""
        place = self.ring[ring]
        try:
            chosen = np.frombuffer(place.wait(index, 4 * rows), np.uint32).astype(np.int64)
        finally:
            place.release()
        if (chosen >= NOTHING).any():
            raise broken_logits()
        return chosen


def argmax_bytes(vocab_size: int, rows: int) -> int:
    """What the choice takes on the device."""
    return 8 * -(-vocab_size // PART) * rows + (AHEAD + 1) * max(256, 4 * rows)


def device_argmax(compiler: Compiler) -> DeviceArgmax:
    """Compile the choice for this step's logits, of up to one token a row at a time."""
    device, vocabulary = compiler.device, compiler.program.vocab_size
    parts = -(-vocabulary // PART)
    best = compiler.own(8 * parts * compiler.logit_rows, "the best of the parts")
    step = Slice(compiler.step_buffer, 0, compiler.step_buffer.size)
    kernels = []
    for name, slices in (("argmax", [compiler.logits, best]), ("feed_back", [best, step])):
        text = shader(name, part=PART, parts=parts, vocabulary=vocabulary, inputs=compiler.inputs)
        pipeline = device.pipeline(text, name)
        kernels.append((pipeline, device.bind(pipeline, slices)))
    ring = tuple(device.readback(max(256, 4 * compiler.limits.rows)) for _ in range(AHEAD + 1))
    compiler.made += [place.buffer for place in ring]
    return DeviceArgmax(device, tuple(kernels), parts, compiler.step_buffer, 4 * compiler.inputs.chosen, ring)
