"""Lowering of weights of small floats with a factor for each block of rows and columns: FP8, and MXFP4 of safetensors."""

from __future__ import annotations

import numpy as np

from lacewing.backends.cpu.arguments import SCALED, SCALED_EMBED, SCALED_EXPERTS
from lacewing.backends.cpu.lowering.addresses import of_rows
from lacewing.backends.cpu.lowering.context import Argument, LoweredOp, Lowering
from lacewing.backends.cpu.memory import aligned
from lacewing.backends.cpu.quants import SCALED_FLOATS
from lacewing.backends.weights import WeightView
from lacewing.errors import UnsupportedModelError
from lacewing.program.ops import View

MAX_WIDTH = 100_000  # a row as float32 fits the scratch beside all else
_WHOLE = 2**40  # rows and columns of a block that holds every weight
_READ_IN_PLACE = {"F8_E4M3": "F32", "F4_E2M1": "F8_E8M0"}  # the factors that the kernels read; few others are converted


def is_scaled(low: Lowering, name: str) -> bool:
    """Whether a weight runs on the kernels of this file. Raises UnsupportedModelError for factors of another type's blocks."""
    weight = low.weights[name]
    if weight.quant.name in SCALED_FLOATS:
        return True
    if weight.scales is not None:
        raise UnsupportedModelError(f"the CPU backend has no kernel for {weight.quant} with factors of blocks ({name})")
    return False


def _common(low: Lowering, weight: WeightView) -> tuple[str, dict[str, Argument]]:
    """How kernels call the type, and the arguments about its factors but for their address."""
    quant, (rows, columns) = weight.quant, weight.scale_block
    if weight.shape[-1] > MAX_WIDTH:
        raise UnsupportedModelError(
            f"the CPU backend takes {quant} rows of up to {MAX_WIDTH} values; {weight.name} has {weight.shape[-1]}"
        )
    if weight.scales is None:
        rows, columns, row_bytes = _WHOLE, _WHOLE, 0
    elif _in_place(weight, weight.scales):
        row_bytes = weight.scales.quant.row_bytes(weight.scales.shape[-1])
    else:
        row_bytes = 4 * weight.scales.shape[-1]
    kind = SCALED_FLOATS[quant.name]
    if kind == "f4" and (weight.scales is None or not _in_place(weight, weight.scales) or columns % 32):
        raise UnsupportedModelError(f"the CPU backend takes {quant} with a power of two for each 32 values only, not {weight.name}")
    arguments: dict[str, Argument] = {"scale_rows": rows, "scale_columns": columns, "scale_bytes": row_bytes}
    return kind, arguments | {"row_bytes": quant.row_bytes(weight.shape[-1])}


def _in_place(weight: WeightView, scales: WeightView) -> bool:
    return scales.quant.name == _READ_IN_PLACE[weight.quant.name]


def _kept_factors(low: Lowering, weight: WeightView) -> np.ndarray:
    """float32 (members, factors) in RAM, of the first axis of stacked weights; a single 1 where there are none."""
    name = f"factors of {weight.name}"
    if name not in low.memory.kept:
        members = weight.shape[0] if len(weight.shape) == 3 else 1
        values = np.ones(members, np.float32)
        if weight.scales is not None:
            values = np.concatenate([weight.scales.quant.dequantise(np.asarray(part)).reshape(-1) for part in weight.scales.parts])
        kept = aligned(values.nbytes + 64, np.float32)
        kept[: values.size] = values
        low.memory.kept[name] = kept[: values.size].reshape(members, -1)
    return low.memory.kept[name]


def _factors(low: Lowering, weight: WeightView) -> Argument:
    """The address of the factors of a matrix."""
    scales = weight.scales
    if scales is None or not _in_place(weight, scales):
        return int(_kept_factors(low, weight).ctypes.data)
    return lambda: int(np.asarray(scales.data).ctypes.data)


def _factor_table(low: Lowering, weight: WeightView) -> Argument:
    """The address of a table of int64: where the factors of each member of a stack begin. Filled again at every bind."""
    scales, table = weight.scales, aligned(8 * weight.shape[0], np.int64)
    low.memory.kept[f"addresses of factors of {weight.name}"] = table
    if scales is None or not _in_place(weight, scales) or len(scales.parts) not in (1, len(table)):
        kept = _kept_factors(low, weight)
        table[:] = int(kept.ctypes.data) + kept.strides[0] * np.arange(len(table))
        return int(table.ctypes.data)

    def fill() -> int:
        parts = scales.parts
        if len(parts) == len(table):
            table[:] = [int(part.ctypes.data) for part in parts]
        else:
            table[:] = int(parts[0].ctypes.data) + parts[0].nbytes // len(table) * np.arange(len(table))
        return int(table.ctypes.data)

    return fill


def linear_op(low: Lowering, name: str, x: int, x_stride: int, **arguments: Argument) -> LoweredOp:
    """The product of float rows, `x_stride` bytes apart, with a weight."""
    weight = low.weights[name]
    kind, more = _common(low, weight)
    rows, width = weight.shape
    return LoweredOp(
        f"gemm.scaled.linear_{kind}", SCALED, weight=of_rows(weight), rows=rows, width=width, x=x, x_offsets=low.offsets(x_stride),
        chunk=max(4, min(64, rows // 32 // 4 * 4)), scales=_factors(low, weight), **more, **arguments,
    )  # fmt: skip


def embed_op(low: Lowering, name: str, common: dict[str, Argument]) -> LoweredOp:
    """Rows of a table. `common`: the arguments of all such ops."""
    weight = low.weights[name]
    kind, more = _common(low, weight)
    return LoweredOp(
        f"gemm.scaled.embed_{kind}", SCALED_EMBED, weight=of_rows(weight), scales=_factors(low, weight), gathered=0, **common | more
    )


def experts_op(
    low: Lowering, name: str, x: View, weights: Argument, pairs: dict[str, int], layout: tuple[bool, bool, int, int], x_width: int,
    transposed: bool,
) -> LoweredOp:  # fmt: skip
    """The linear of chosen experts, stored (outputs, inputs) or `transposed`. weights: the table of the addresses of experts;
    pairs, layout and x_width as in experts.py."""
    weight, (separate, interleaved, index, split) = low.weights[name], layout
    (experts, rows, width), (kind, more) = weight.shape, _common(low, weight)
    if transposed:
        rows, width = width, rows
        if kind != "f8":
            raise UnsupportedModelError(f"the CPU backend runs {weight.quant} stored (outputs, inputs) only, not {name}")
    rows //= split
    return LoweredOp(
        f"experts.scaled.{'columns' if transposed else 'rows'}_{kind}", SCALED_EXPERTS, weight=weights, width=width,
        first=index * (1 if interleaved else rows), skip=split if interleaved else 1, scales=_factor_table(low, weight),
        x=low.at(x), x_stride=low.stride(x), x_part=4 * x_width if separate else 0, experts=experts,
        **more, **pairs | {"rows": rows},
    )  # fmt: skip
