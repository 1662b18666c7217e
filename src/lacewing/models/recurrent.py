"""Brings the weights of convolutions and recurrences into one form, without a copy: convolutions (D, kernel), a number a head (H,).

Files have axes of one, groups of values, or a convolution each for q, k and v.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from lacewing.errors import WeightError
from lacewing.formats.checkpoint import TensorInfo
from lacewing.models.config import ModelConfig

_OF_ONE = re.compile(r"^(blk\.\d+\.ssm_conv1d)_q\.weight$")
_CONVOLUTIONS = (".shortconv.conv.weight", *(f".ssm_conv1d{part}.weight" for part in ("", "_q", "_k", "_v")))
_NUMBERS = (".ssm_a.weight", ".ssm_d.weight", ".ssm_norm.weight")


def arrange_recurrent(tensors: Mapping[str, TensorInfo], config: ModelConfig, where: str) -> dict[str, TensorInfo]:
    """The tensors as the program wants them. Raises WeightError for convolutions that do not fit together."""
    found = {name: _flat_convolution(name, tensor) for name, tensor in tensors.items()}
    if config.mamba is not None or config.delta is not None:
        found = {name: _flat_numbers(name, tensor) for name, tensor in found.items()}
    for name in [name for name in found if _OF_ONE.match(name)]:
        _join(found, name.removesuffix("_q.weight"), where)
    return found


def _flat_convolution(name: str, tensor: TensorInfo) -> TensorInfo:
    """(D, kernel) of a depthwise convolution, which has one input for each output: an axis of one, and another in GGUF."""
    if not name.endswith(_CONVOLUTIONS) or len(tensor.shape) not in (3, 4):
        return tensor
    *outer, rows, inputs, taps = tensor.shape
    return replace(tensor, shape=(rows, taps)) if inputs == 1 and outer in ([], [1]) else tensor


def _flat_numbers(name: str, tensor: TensorInfo) -> TensorInfo:
    """Numbers a head and a column as (n,), which files have with axes of one and in groups."""
    return replace(tensor, shape=(tensor.elements,)) if name.endswith(_NUMBERS) and len(tensor.shape) > 1 else tensor


def _join(tensors: dict[str, TensorInfo], stem: str, where: str) -> None:
    """Convolutions of q, k and v as one, whose rows stand in this order."""
    parts = [tensors.pop(f"{stem}_{part}.weight", None) for part in ("q", "k", "v")]
    whole = [part for part in parts if part is not None and len(part.shape) == 2 and len(part.ranges) == 1]
    if len(whole) < 3 or len({(part.shape[1], part.quant.name) for part in whole}) != 1 or f"{stem}.weight" in tensors:
        raise WeightError(f"{where}: {stem}_q, _k and _v are not three convolutions of as many positions in one format")
    rows, ranges = sum(part.shape[0] for part in whole), tuple(part.ranges[0] for part in whole)
    tensors[f"{stem}.weight"] = replace(whole[0], name=f"{stem}.weight", shape=(rows, whole[0].shape[1]), ranges=ranges)
