"""Greedy choice on the device: the next token is fed back without the host, and steps run ahead of what is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lacewing.backends.webgpu.device.device import Device, Slice
from lacewing.backends.webgpu.device.raw import Readback, Recorded, Recorder
from lacewing.backends.webgpu.kernels import shader
from lacewing.backends.webgpu.lowering.compiler import HEADER_WORDS, Compiler
from lacewing.errors import NumericError

PART = 2048  # logits that a workgroup looks through
CHOSEN = 3  # word of the step's inputs where the choice stands
AHEAD = 2  # submissions under way
BROKEN = 2**32 - 1  # id of a logit that is NaN or infinite
NOTHING = BROKEN - 1  # where no logit is above minus infinity


@dataclass(frozen=True)
class Feedback:
    """The dispatches after the logits, and the ring that brings ids to the host."""

    device: Device
    plan: list[tuple[Any, Any, int, int, int]]
    owners: tuple[Any, ...]
    step_buffer: Any
    ring: tuple[Readback, ...]

    def submit(self, plan: Recorded, ring: int) -> int:
        """Run `plan` and the choice; its id goes to place `ring`. The number of the submission."""
        recorder, place = Recorder(self.device.device), self.ring[ring]
        recorder.dispatches([*plan, *self.plan])
        place.copy(recorder, self.step_buffer, 4 * CHOSEN, 4)
        index = recorder.submit()
        place.start(4)
        return index

    def take(self, ring: int, index: int) -> int:
        """The id at place `ring`. Raises NumericError for broken logits."""
        place = self.ring[ring]
        try:
            chosen = int(np.frombuffer(place.wait(index, 4), np.uint32)[0])
        finally:
            place.release()
        if chosen >= NOTHING:
            raise broken_logits()
        return chosen


def broken_logits() -> NumericError:
    return NumericError(
        "the model produced NaN or infinite logits; "
        "the checkpoint may be damaged (compare its checksum), or try --backend reference"
    )


def feedback(compiler: Compiler) -> Feedback:
    """Compile the choice for this step's logits."""
    device, vocabulary = compiler.device, compiler.program.vocab_size
    parts = -(-vocabulary // PART)
    best = compiler.own(8 * parts, "the best of the parts")
    step = Slice(compiler.step_buffer, 0, compiler.step_buffer.size)
    plan, owners = [], []
    kernels: Iterator[tuple[str, list[Slice], int]] = iter(
        (("argmax", [compiler.logits, best], parts), ("feed_back", [best, step], 1))
    )
    for name, slices, count in kernels:
        text = shader(
            name, part=PART, parts=parts, vocabulary=vocabulary, header=HEADER_WORDS, chunk=compiler.limits.chunk, chosen=CHOSEN
        )
        pipeline = device.pipeline(text, name)
        group = device.bind(pipeline, slices)
        plan.append((pipeline.handle, group._internal, count, 1, 1))
        owners.append((pipeline, group))
    ring = tuple(device.readback(256) for _ in range(AHEAD + 1))
    compiler.made += [place.buffer for place in ring]
    return Feedback(device, plan, tuple(owners), compiler.step_buffer, ring)
