"""The values of small tensors that are numbers of the program: factors of a rotation, the constants of an activation."""

from __future__ import annotations

import math

from lacewing.errors import WeightError
from lacewing.formats.checkpoint import TensorInfo
from lacewing.formats.read import mapped


def numbers_of(info: TensorInfo, whole: bool) -> tuple[float, ...]:
    """All values; ones where only headers are here. Raises WeightError for what is no short list of finite numbers."""
    if len(info.shape) > 1 or info.elements > 2**16:
        raise WeightError(f"{info.name} has shape {info.shape}; it must be a short list of numbers")
    if not whole:
        return (1.0,) * info.elements
    values = tuple(float(value) for value in info.quant.dequantise(mapped(info.ranges[0])).reshape(-1))
    if not all(map(math.isfinite, values)):
        raise WeightError(f"{info.name} holds values that are not numbers")
    return values
