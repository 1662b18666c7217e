"""Lowering of mixtures of experts: the router, the sorting by expert, the linear of the chosen experts, their sum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lacewing.backends.cpu.arguments import COMBINE, EXPERT_ROWS, EXPERTS, GATED, GROUP, GROUPS_HEAD, ROUTE
from lacewing.backends.cpu.isa import host_isa
from lacewing.backends.cpu.plan import LoweredOp, Word, aligned, float_word
from lacewing.backends.cpu.quants import TileKernels, kernels_of
from lacewing.errors import UnsupportedModelError
from lacewing.program import ops
from lacewing.program.ops import View

if TYPE_CHECKING:
    from lacewing.backends.cpu.lower import Lowering


def lower_route(low: Lowering, op: ops.Route) -> None:
    """The router, and the pairs sorted by expert for the linears that follow."""
    experts, active = op.logits.width, op.ids.width
    made = LoweredOp(
        "route.route", ROUTE, logits=low.at(op.logits), logits_stride=low.stride(op.logits), ids=low.at(op.ids),
        ids_stride=low.stride(op.ids), weights=low.at(op.weights), weights_stride=low.stride(op.weights), experts=experts,
        active=active, sigmoid=int(op.gating == "sigmoid"), bias=low.memory.vector(low.weights, op.bias) if op.bias else 0,
        groups=op.groups, groups_used=op.groups_used, group_best=op.group_best, renormalise=int(op.renormalise),
        scale=float_word(op.scale),
    )  # fmt: skip
    low.emit(made, op.ids, op.weights)
    words = {"ids": low.at(op.ids), "ids_stride": low.stride(op.ids), "active": active, "experts": experts}
    low.emit(LoweredOp("route.group", GROUP, to=_groups(low, op.ids, experts), **words))


def _groups(low: Lowering, ids: View, experts: int) -> int:
    """Where the sorted pairs of a step are."""
    words = GROUPS_HEAD // 8 + 2 * experts + 1 + low.limits.chunk * ids.width
    return low.memory.area(f"groups of {ids.buffer.name}[{ids.start}]", 8 * words)


def lower_expert_linear(low: Lowering, op: ops.ExpertLinear) -> None:
    """One op for each output; those of one ExpertLinear need no barrier between them."""
    if op.transposed:
        raise UnsupportedModelError("the CPU backend cannot run experts that are stored (inputs, outputs) yet")
    biases = op.biases or (None,) * len(op.weights)
    split = len(op.outs) // len(op.weights)  # 2: one weight holds the rows of both outputs
    x_bytes = 0
    if any(_tiled(low, name) for name in op.weights):
        x_bytes = low.bytes_of(op.x, op.ids.width if op.separate else 1)
    for index, out in enumerate(op.outs):
        name, bias = op.weights[index // split], biases[index // split]
        made = _expert_op(low, op, name, x_bytes, out, (index % split, split))
        if bias:
            made.set(bias=_bias(low, bias, index % split, split, op.interleaved))
        made.barrier = index == 0
        low.emit(made, out)


def _tiled(low: Lowering, name: str) -> bool:
    weight = low.weights[name]
    return isinstance(kernels_of(weight.quant), TileKernels) and weight.shape[1] >= host_isa().lanes


def _expert_op(low: Lowering, op: ops.ExpertLinear, name: str, x_bytes: int, out: View, part: tuple[int, int]) -> LoweredOp:
    """`part` (i, n): the i-th of n outputs whose rows the weight holds."""
    weight, active = low.weights[name], op.ids.width
    experts, all_rows, width = weight.shape
    quant, kinds = weight.quant, kernels_of(weight.quant)
    index, split = part
    rows, row_bytes = all_rows // split, quant.row_bytes(width)
    skipped = index * row_bytes * (1 if op.interleaved else rows)
    words: dict[str, Word] = {
        "weight": _addresses(low, name, skipped), "rows": rows, "row_bytes": row_bytes * (split if op.interleaved else 1),
        "blocks": width // quant.block_elements, "out": low.at(out), "out_stride": low.stride(out), "out_part": 4 * rows,
        "groups": _groups(low, op.ids, experts), "experts": experts, "parts": active,
    }  # fmt: skip
    if op.factor is not None:
        words |= {"factor": low.at(op.factor), "factor_stride": low.stride(op.factor)}
    if isinstance(kinds, TileKernels) and rows >= host_isa().lanes:
        stride = low.bytes_stride(width)
        return LoweredOp(
            "experts.linear", EXPERTS, block_bytes=quant.block_bytes, block_columns=quant.block_elements,
            unpack=low.kernel(kinds.unpack), dot=low.kernel(kinds.dot), shift=kinds.shift or 0, x=x_bytes, x_scales=width,
            x_sums=int(width * kinds.sums_at), sum_bytes=kinds.sum_bytes,
            x_stride=stride * active if op.separate else stride, x_part=stride if op.separate else 0, **words,
        )  # fmt: skip
    words |= {"x": low.at(op.x), "x_stride": low.stride(op.x), "x_part": 4 * width if op.separate else 0, "width": width}
    if isinstance(kinds, TileKernels):
        raise UnsupportedModelError(f"the CPU backend has no kernel for {quant} experts of {rows} rows ({name})")
    if "." not in kinds:
        return LoweredOp(f"experts.rows_{kinds}", EXPERT_ROWS, **words)
    return LoweredOp("experts.rows_generic", EXPERT_ROWS, dequantise=low.kernel(kinds), **words)


def _addresses(low: Lowering, name: str, skipped: int) -> Word:
    """A table of int64: where the rows of each expert begin, `skipped` bytes into it. Filled again at every bind."""
    table = aligned(8 * low.weights[name].shape[0], np.int64)
    low.memory.kept[f"addresses of {name} + {skipped}"] = table

    def fill() -> int:
        parts = low.weights[name].parts
        if len(parts) == 1:
            step = parts[0].nbytes // len(table)
            table[:] = int(parts[0].ctypes.data) + skipped + step * np.arange(len(table))
        else:
            table[:] = [int(part.ctypes.data) + skipped for part in parts]
        return int(table.ctypes.data)

    return fill


def _bias(low: Lowering, name: str, index: int, split: int, interleaved: bool) -> int:
    """The biases of one output, (E, O) float32 in own memory."""
    weight = low.weights[name]
    values = np.concatenate([weight.quant.dequantise(np.asarray(part)).reshape(-1) for part in weight.parts]).reshape(weight.shape)
    rows = weight.shape[1] // split
    chosen = values[:, index::split] if interleaved else values[:, index * rows : (index + 1) * rows]
    kept = aligned(chosen.nbytes + 64, np.float32)
    kept[: chosen.size] = chosen.reshape(-1)
    low.memory.kept[f"{name} part {index}"] = kept
    return int(kept.ctypes.data)


def lower_clamped_activation(low: Lowering, op: ops.ClampedActivation) -> None:
    made = LoweredOp(
        "elementwise.clamped", GATED, gate=low.at(op.gate), gate_stride=low.stride(op.gate), up=low.at(op.up),
        up_stride=low.stride(op.up), out=low.at(op.out), out_stride=low.stride(op.out), width=op.out.width,
        alpha=float_word(op.alpha), limit=float_word(op.limit),
    )  # fmt: skip
    low.emit(made, op.out)


def lower_combine(low: Lowering, op: ops.Combine) -> None:
    made = LoweredOp(
        "elementwise.combine", COMBINE, x=low.at(op.x), x_stride=low.stride(op.x), out=low.at(op.out),
        out_stride=low.stride(op.out), width=op.out.width, active=op.active,
    )  # fmt: skip
    if op.weights is not None:
        made.set(weights=low.at(op.weights), weights_stride=low.stride(op.weights))
    if op.add is not None:
        made.set(add=low.at(op.add), add_stride=low.stride(op.add))
    low.emit(made, op.out)
