"""How much memory weights will take on the device, told from their headers."""

from __future__ import annotations

import math

from lacewing.backends.base import Described
from lacewing.backends.webgpu.conversion import FP8, PLAIN
from lacewing.backends.webgpu.layouts import GROUP, LAYOUTS, RUN


def weight_bytes(weight: Described, transposed: bool = False) -> int:
    """What the cutter makes of a matrix, or stacked ones. Where factors decide between F16 and F32, which only reading them tells,
    F16 is taken. Vectors are float32."""
    if len(weight.shape) == 1:
        return 4 * weight.shape[0]
    rows, groups = _rows_and_groups(weight, transposed)
    return sum(plane.nbytes(rows * groups) for plane in LAYOUTS[_stored(weight, transposed)].planes)


def holds_some(weight: Described, transposed: bool = False) -> bool:
    """Whether single experts of a stack can be exchanged: each is whole runs, and none has factors apart from its values."""
    _, groups = _rows_and_groups(weight, transposed)
    return weight.scales is None and weight.shape[-1 if transposed else -2] * groups % RUN == 0


def _rows_and_groups(weight: Described, transposed: bool) -> tuple[int, int]:
    """Of all matrices."""
    columns = weight.shape[-2 if transposed else -1]
    return math.prod(weight.shape) // columns, -(-columns // GROUP)


def _stored(weight: Described, transposed: bool) -> str:
    """`conversion.stored_as`, as far as headers tell."""
    name, whole = weight.quant.name, weight.shape[-2 if transposed else -1] % GROUP == 0
    scaled = weight.scales is not None
    if name == FP8:
        return name if whole and not transposed and (not scaled or weight.scale_block[1] % GROUP == 0) else "F16"
    if not scaled and name in (PLAIN if transposed else LAYOUTS):
        return name
    if name == "F4_E2M1":
        return "MXFP4" if scaled and whole and not transposed else "F16"
    if weight.quant.block_elements == 1:
        return "F16" if weight.quant.block_bytes == 1 else "F32"
    return "Q8_0" if whole else "F32"
