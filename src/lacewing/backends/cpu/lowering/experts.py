"""Rules for mixtures of experts: the router, the sorting by expert, the linear of the chosen experts, their sum."""

from __future__ import annotations

import numpy as np

from lacewing.backends.cpu.arguments import (
    ALL_HEADS,
    COMBINE,
    EXPERT_COLUMNS,
    EXPERT_ROWS,
    EXPERTS,
    GROUP,
    GROUPS_HEAD,
    ROUTE,
    SCRATCH_BYTES,
    TAILS,
)
from lacewing.backends.cpu.isa import host_isa
from lacewing.backends.cpu.lowering import scaled
from lacewing.backends.cpu.lowering.addresses import of_experts, tile_kernels, tile_order
from lacewing.backends.cpu.lowering.context import (
    RULES,
    Argument,
    ExpertChain,
    LoweredOp,
    Lowering,
    WatchedRouter,
    float_argument,
)
from lacewing.backends.cpu.memory import aligned
from lacewing.backends.cpu.quants import TileKernels, kernels_of
from lacewing.backends.weights import ExpertSlots
from lacewing.errors import UnsupportedModelError
from lacewing.options import counted
from lacewing.program import ops
from lacewing.program.ops import Op, View

_PADDING = 16  # values of the widest register


def route_op(low: Lowering, op: ops.Route) -> LoweredOp:
    """The router itself."""
    experts, active = op.logits.width, op.ids.width
    room, groups = 4 * (experts + _PADDING), 8 * op.groups
    needed = 2 * room + max(room, groups)  # probabilities, scores, and what groups or SparseMixer work with
    if needed > SCRATCH_BYTES:
        least = f"the router needs {needed} bytes for {counted(experts, 'expert')}, more than the {SCRATCH_BYTES} of a thread"
        raise UnsupportedModelError(f"the CPU backend cannot run layer {op.layer}: {least}")
    return LoweredOp(
        "experts.route.route", ROUTE, logits=low.at(op.logits), logits_stride=low.stride(op.logits), ids=low.at(op.ids),
        ids_stride=low.stride(op.ids), weights=low.at(op.weights), weights_stride=low.stride(op.weights), experts=experts,
        active=active, sigmoid=int(op.gating == "sigmoid"), bias=low.vector(op.bias) if op.bias else 0,
        groups=op.groups, groups_used=op.groups_used, group_best=op.group_best, renormalise=int(op.renormalise),
        scale=float_argument(op.scale), scales=low.vector(op.scales) if op.scales else 0,
        sparse=int(op.gating == "sparsemixer"), jitter=float_argument(op.jitter),
    )  # fmt: skip


@RULES.rule(ops.Route)
def lower_route(low: Lowering, op: ops.Route, rest: tuple[Op, ...]) -> None:
    """The router, and the pairs sorted by expert for the linears that follow."""
    made = route_op(low, op)
    experts, active = op.logits.width, op.ids.width
    watched = WatchedRouter(op.layer, np.empty(0, np.int32), np.empty(0, np.float32), active, experts)
    low.routers.append(watched)
    made.set(watched_ids=watched.ids_address, watched_probabilities=watched.probabilities_address)
    low.emit(made, op.ids, op.weights)
    _sort(low, op.ids, experts)


def _sort(low: Lowering, ids: View, experts: int) -> None:
    """Sort the pairs of ids that are new."""
    arguments: dict[str, Argument] = {
        "ids": low.at(ids), "ids_stride": low.stride(ids), "active": ids.width, "experts": experts,
    }  # fmt: skip
    made = LoweredOp("experts.route.group", GROUP, to=_groups(low, ids, experts), **arguments)
    chain = ExpertChain(made, _area(ids), experts)

    def slots() -> ExpertSlots | None:
        return low.weights[chain.names[0]].slots if chain.names else None

    def there() -> int:
        found = slots()
        return 0 if found is None else int(found.addresses[chain.names[0]].ctypes.data)

    def of_slots(name: str) -> Argument:
        return lambda: 0 if (found := slots()) is None else int(getattr(found, name).ctypes.data)

    made.set(there=there, **{name: of_slots(name) for name in ("counts", "clock", "chosen")})
    low.extra |= {"experts.collecting.collect", "experts.collecting.read"}
    low.emit(made)
    low.sorted[ids] = chain
    low.chains.append(chain)


def _area(ids: View) -> str:
    return f"groups of {ids.buffer.name}[{ids.start}]"


def _groups(low: Lowering, ids: View, experts: int) -> int:
    """Where the sorted pairs of a step are."""
    words = GROUPS_HEAD // 8 + 2 * experts + 1 + low.limits.chunk * ids.width
    return low.memory.area(_area(ids), 8 * words)


@RULES.rule(ops.ExpertLinear)
def lower_expert_linear(low: Lowering, op: ops.ExpertLinear, rest: tuple[Op, ...]) -> None:
    """One op for each output; those of one ExpertLinear need no barrier between them."""
    if op.ids not in low.sorted:  # they came from another device
        _sort(low, op.ids, low.weights[op.weights[0]].shape[0])
    biases = op.biases or (None,) * len(op.weights)
    split = len(op.outs) // len(op.weights)  # 2: one weight holds the rows of both outputs
    x_bytes = 0
    if not op.transposed and any(_tiled(low, name) for name in op.weights):
        x_bytes = low.bytes_of(op.x, op.ids.width if op.separate else 1)
    for index, out in enumerate(op.outs):
        name, bias = op.weights[index // split], biases[index // split]
        pairs = _pairs(low, op.ids.width, _groups(low, op.ids, low.weights[name].shape[0]), out)
        if op.factor is not None:
            pairs |= {"factor": low.at(op.factor), "factor_stride": low.stride(op.factor)}
        layout = (op.separate, op.interleaved, index % split, split)
        made = (_columns_op if op.transposed else _rows_op)(low, name, op.x, x_bytes, pairs, layout)
        if bias:
            made.set(bias=_bias(low, bias, index % split, split, op.interleaved))
        made.barrier = index == 0
        low.emit(made, out)
    experts = low.weights[op.weights[0]].shape[0]
    words = {"groups": _groups(low, op.ids, experts), "experts": experts, "parts": op.ids.width}
    low.of_pairs |= dict.fromkeys(op.outs, words)
    chain = low.sorted[op.ids]
    chain.names += op.weights
    chain.last = low.ops[-1]


def _tiled(low: Lowering, name: str) -> bool:
    weight = low.weights[name]
    return isinstance(kernels_of(weight.quant), TileKernels) and weight.shape[1] >= host_isa().lanes


def _pairs(low: Lowering, parts: int, groups: int, out: View) -> dict[str, int]:
    """What says which expert does which part of which token, and where the results go."""
    width = out.width // parts
    return {
        "groups": groups,
        "parts": parts,
        "out": low.at(out),
        "out_stride": low.stride(out),
        "out_part": 4 * width,
        "rows": width,
    }


def _rows_op(
    low: Lowering, name: str, x: View, x_bytes: int, pairs: dict[str, int], layout: tuple[bool, bool, int, int], x_width: int = 0
) -> LoweredOp:
    """Experts stored (outputs, inputs). layout: x has a part for each expert; rows of several outputs are interleaved; which
    output, of how many. x_width: columns of a part of x, if it is wider than the weight."""
    separate, interleaved, index, split = layout
    weight, parts = low.weights[name], pairs["parts"]
    experts, all_rows, width = weight.shape
    quant, kinds, x_width = weight.quant, kernels_of(weight.quant), x_width or width
    rows, row_bytes = all_rows // split, quant.row_bytes(width)
    if scaled.is_scaled(low, name):
        return scaled.experts_op(low, name, x, of_experts(low, name, 0), pairs, layout, x_width, transposed=False)
    skipped = index * row_bytes * (1 if interleaved else rows)
    arguments: dict[str, Argument] = {
        **pairs, "rows": rows, "experts": experts, "row_bytes": row_bytes * (split if interleaved else 1),
        "blocks": width // quant.block_elements,
    }  # fmt: skip
    if isinstance(kinds, TileKernels) and rows >= host_isa().lanes and x_bytes:
        stride = low.bytes_stride(x_width)
        return LoweredOp(
            "experts.linear.linear", EXPERTS, block_bytes=quant.block_bytes, block_columns=quant.block_elements,
            dot=low.kernel(kinds.dot), shift=kinds.shift or 0, x=x_bytes, x_scales=x_width,
            x_sums=int(x_width * kinds.sums_at), sum_bytes=kinds.sum_bytes, **tile_kernels(low, weight, kinds),
            x_stride=stride * parts if separate else stride, x_part=stride if separate else 0,
            weight=of_experts(low, name, skipped, tiled=True), tiled=tile_order(weight), **arguments,
        )  # fmt: skip
    arguments["weight"] = of_experts(low, name, skipped)
    arguments |= {"x": low.at(x), "x_stride": low.stride(x), "x_part": 4 * x_width if separate else 0, "width": width}
    if isinstance(kinds, TileKernels):
        raise UnsupportedModelError(f"the CPU backend has no kernel for {quant} experts of {rows} rows ({name})")
    if "." not in kinds:
        return LoweredOp(f"experts.linear.rows_{kinds}", EXPERT_ROWS, **arguments)
    return LoweredOp("experts.linear.rows_generic", EXPERT_ROWS, dequantise=low.kernel(kinds), **arguments)


def _columns_op(
    low: Lowering, name: str, x: View, x_bytes: int, pairs: dict[str, int], layout: tuple[bool, bool, int, int], x_width: int = 0
) -> LoweredOp:
    """Experts stored (inputs, outputs), which only files of floats are; otherwise as `_rows_op`."""
    separate, interleaved, index, split = layout
    weight = low.weights[name]
    experts, width, all_rows = weight.shape
    kinds, x_width = kernels_of(weight.quant), x_width or width
    if scaled.is_scaled(low, name):
        return scaled.experts_op(low, name, x, of_experts(low, name, 0), pairs, layout, x_width, transposed=True)
    addresses, row_bytes = of_experts(low, name, 0), weight.quant.row_bytes(all_rows)
    if not isinstance(kinds, str) or "." in kinds:
        if not separate or split > 1:
            raise UnsupportedModelError(
                f"the CPU backend runs experts stored (inputs, outputs) as floats only; {name} is {weight.quant}"
            )
        addresses, row_bytes, kinds = _halves(low, name), 2 * all_rows, "f16"
    arguments: dict[str, Argument] = {
        **pairs, "weight": addresses, "rows": all_rows // split, "row_bytes": row_bytes,
        "width": width, "experts": experts, "x": low.at(x), "x_stride": low.stride(x), "x_part": 4 * x_width if separate else 0,
        "skip": split if interleaved else 1, "first": index * (1 if interleaved else all_rows // split),
    }  # fmt: skip
    return LoweredOp(f"experts.linear.columns_{kinds}", EXPERT_COLUMNS, **arguments)


@RULES.rule(ops.HeadLinear)
def lower_head_linear(low: Lowering, op: ops.HeadLinear, rest: tuple[Op, ...]) -> None:
    """The linear of experts with the heads as experts: each takes its part of every token. What is behind is copied."""
    heads, inputs = op.heads, low.weights[op.weight].shape[1 if op.transposed else 2]
    x_width, out_width = op.x.width // heads, op.out.width // heads
    outputs = out_width - (x_width - inputs)
    groups = low.memory.area(f"groups of {heads} heads", GROUPS_HEAD + 8 * (2 * heads + 1 + low.limits.chunk * heads))
    if groups not in low.head_groups:
        low.head_groups.add(groups)
        made = LoweredOp("experts.route.all_heads", ALL_HEADS, heads=heads, to=groups)
        made.barrier = False
        low.ops.insert(0, made)
    tiled = not op.transposed and _tiled(low, op.weight) and x_width % 32 == 0
    x_bytes = low.bytes_of(op.x, heads) if tiled else 0
    pairs = _pairs(low, heads, groups, op.out)
    layout = (True, False, 0, 1)
    if isinstance(kernels_of(low.weights[op.weight].quant), TileKernels) and not tiled and not op.transposed:
        made = _half_rows_op(low, op.weight, op.x, pairs, x_width)
    else:
        made = (_columns_op if op.transposed else _rows_op)(low, op.weight, op.x, x_bytes, pairs, layout, x_width)
    low.emit(made, op.out)
    if out_width > outputs:
        tails = LoweredOp(
            "elementwise.copy_tails", TAILS, x=low.at(op.x), x_stride=low.stride(op.x), x_part=4 * x_width, x_start=4 * inputs,
            out=low.at(op.out), out_stride=low.stride(op.out), out_part=4 * out_width, out_start=4 * outputs, heads=heads,
            width=out_width - outputs,
        )  # fmt: skip
        tails.barrier = False
        low.emit(tails, op.out)


def _half_rows_op(low: Lowering, name: str, x: View, pairs: dict[str, int], x_width: int) -> LoweredOp:
    """A matrix for each head in float16, of a quant whose tiles do not fit: few rows, or parts of x that are no whole blocks."""
    heads, rows, width = low.weights[name].shape
    return LoweredOp(
        "experts.linear.rows_f16", EXPERT_ROWS, x=low.at(x), x_stride=low.stride(x), x_part=4 * x_width, width=width, experts=heads,
        weight=_halves(low, name), row_bytes=2 * width, blocks=width, **pairs | {"rows": rows},
    )  # fmt: skip


def _halves(low: Lowering, name: str) -> int:
    """A table as of `of_experts` for values in float16 in RAM: older files of latent attention hold the up-projection of
    keys in rows that must be read across, which no quant allows."""
    weight = low.weights[name]
    values = aligned(2 * int(np.prod(weight.shape)) + 64, np.float16)
    at = 0
    for part in weight.parts:
        row = weight.quant.dequantise(np.asarray(part)).reshape(-1)
        values[at : at + row.size] = row
        at += row.size
    table = aligned(8 * weight.shape[0], np.int64)
    table[:] = int(values.ctypes.data) + 2 * (at // weight.shape[0]) * np.arange(weight.shape[0])
    low.memory.kept |= {f"{name} in float16": values, f"addresses of {name} in float16": table}
    return int(table.ctypes.data)


def _bias(low: Lowering, name: str, index: int, split: int, interleaved: bool) -> int:
    """The biases of one output, (E, O) float32 in RAM."""
    weight = low.weights[name]
    values = np.concatenate([weight.quant.dequantise(np.asarray(part)).reshape(-1) for part in weight.parts]).reshape(weight.shape)
    rows = weight.shape[1] // split
    chosen = values[:, index::split] if interleaved else values[:, index * rows : (index + 1) * rows]
    kept = aligned(chosen.nbytes + 64, np.float32)
    kept[: chosen.size] = chosen.reshape(-1)
    low.memory.kept[f"{name} part {index}"] = kept
    return int(kept.ctypes.data)


@RULES.rule(ops.Combine)
def lower_combine(low: Lowering, op: ops.Combine, rest: tuple[Op, ...]) -> None:
    made = LoweredOp(
        "elementwise.combine", COMBINE, x=low.at(op.x), x_stride=low.stride(op.x), out=low.at(op.out),
        out_stride=low.stride(op.out), width=op.out.width, active=op.active,
    )  # fmt: skip
    if op.weights is not None:
        made.set(weights=low.at(op.weights), weights_stride=low.stride(op.weights))
    if op.add is not None:
        made.set(add=low.at(op.add), add_stride=low.stride(op.add))
    if op.ids is not None:
        made.set(ids=low.at(op.ids), ids_stride=low.stride(op.ids))
    low.emit(made, op.out)
