"""How much memory weights will take on the device, told from their headers."""

from __future__ import annotations

import math

from lacewing.backends.base import Described
from lacewing.backends.webgpu.layouts import GROUP, LAYOUTS


def weight_bytes(weight: Described) -> int:
    """What `conversion.stored_as` and the cutter make of it, or a little more: without reading factors F16 is taken for F32."""
    name, columns = weight.quant.name, weight.shape[-1]
    rows = math.prod(weight.shape[:-1])
    if weight.scales is not None:
        name = "MXFP4" if weight.quant.name == "F4_E2M1" else "F16" if weight.quant.block_elements == 1 else "Q8_0"
    elif name not in LAYOUTS:
        name = (
            "F16"
            if weight.quant.block_elements == 1 and weight.quant.block_bytes == 1
            else "Q8_0"
            if columns % GROUP == 0
            else "F32"
        )
    return sum(plane.nbytes(rows * -(-columns // GROUP)) for plane in LAYOUTS[name].planes)
