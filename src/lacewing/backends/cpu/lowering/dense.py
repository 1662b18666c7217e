"""Rules for embeddings, norms, linears, activations and logits."""

from __future__ import annotations

import numpy as np

from lacewing.backends.cpu.arguments import (
    CAP,
    CONVOLVE,
    EMBED,
    GATED,
    GATHER,
    LARGEST,
    LARGEST_PART,
    LARGEST_PIECE,
    LINEAR,
    NORM,
    ROWS,
    SCALE,
    SPLIT,
)
from lacewing.backends.cpu.isa import host_isa
from lacewing.backends.cpu.lowering import heads, scaled
from lacewing.backends.cpu.lowering.addresses import of_either_order, of_rows, tile_kernels, unpacker
from lacewing.backends.cpu.lowering.context import RULES, Argument, LoweredOp, Lowering, float_argument
from lacewing.backends.cpu.memory import aligned
from lacewing.backends.cpu.quants import TileKernels, kernels_of
from lacewing.backends.cpu.rows import GatheredRows
from lacewing.errors import UnsupportedModelError
from lacewing.program import ops
from lacewing.program.ops import Op, View

MAX_GENERIC_WIDTH = 65_000  # a dequantised row fits SCRATCH_BYTES


@RULES.rule(ops.Embed)
def lower_embed(low: Lowering, op: ops.Embed, rest: tuple[Op, ...]) -> None:
    low.emit(embed_op(low, op.weight, op.out, op.scale), op.out)


def embed_op(low: Lowering, name: str, out: View, scale: float, other: int = -1) -> LoweredOp:
    """Rows of a table, times a scale; those without an id in it take row `other`; below 0: they have their rows already."""
    table, width = low.weights[name], out.width
    common: dict[str, Argument] = {
        "rows": table.shape[0], "other": other, "row_bytes": table.quant.row_bytes(width), "width": width, "out": low.at(out),
        "out_stride": low.stride(out), "scale": float_argument(scale),
    }  # fmt: skip
    if scaled.is_scaled(low, name):
        return scaled.embed_op(low, name, common)
    quant, kinds, rows = table.quant, kernels_of(table.quant), GatheredRows(table, low.memory)
    low.gathered.append(rows)
    made = LoweredOp(
        "embed.embed_tiles", EMBED, blocks=width // quant.block_elements, block_bytes=quant.block_bytes,
        block_columns=quant.block_elements, gathered=lambda: int(table.row_table is not None), **common,
    )  # fmt: skip
    if isinstance(kinds, TileKernels):
        shift = -1 if kinds.shift is None else kinds.shift
        made.set(unpack=unpacker(low, table, kinds), sub_block=kinds.sub_block, shift=shift, **of_either_order(table, rows))
    elif "." in kinds:
        made.kernel = "embed.embed_generic"
        made.set(unpack=low.kernel(kinds), weight=of_rows(table, rows))
    else:
        made.kernel = f"embed.embed_{kinds}"
        made.set(weight=of_rows(table, rows))
    return made


@RULES.rule(ops.Norm)
def lower_norm(low: Lowering, op: ops.Norm, rest: tuple[Op, ...]) -> None:
    if heads.takes_norm(low, op, rest):
        return
    heads.flush(low)
    made = _norm_op(low, op, op.heads)
    low.emit(made, op.out)
    low.may_quantise(made, op.out, op.out.width)


@RULES.rule(ops.AddNorm)
def lower_add_norm(low: Lowering, op: ops.AddNorm, rest: tuple[Op, ...]) -> None:
    made = _norm_op(low, op, 1)
    made.set(add=low.at(op.add), add_stride=low.stride(op.add), add_scale=float_argument(op.scale))
    low.emit(made, op.out, op.x)
    low.may_quantise(made, op.out, op.out.width)


def _norm_op(low: Lowering, op: ops.Norm | ops.AddNorm, count: int) -> LoweredOp:
    return LoweredOp(
        "norm.norm", NORM, x=low.at(op.x), x_stride=low.stride(op.x), out=low.at(op.out), out_stride=low.stride(op.out),
        width=op.x.width // count, heads=count, **heads.norm_arguments(low, op),
        weight_step=4 * (op.x.width // count) if op.weight and low.program.weights[op.weight][0] > op.x.width // count else 0,
    )  # fmt: skip


@RULES.rule(ops.Linear)
def lower_linear(low: Lowering, op: ops.Linear, rest: tuple[Op, ...]) -> None:
    biases = op.biases or (None,) * len(op.weights)
    x_bytes = low.bytes_of(op.x) if any(_tiled(low, name) for name in op.weights) else 0
    for index, (name, out, bias) in enumerate(zip(op.weights, op.outs, biases, strict=True)):
        x = x_bytes if _tiled(low, name) else low.at(op.x)
        made = _linear_op(low, name, x, low.stride(op.x), out=low.at(out), out_stride=low.stride(out))
        made.barrier = index == 0
        if bias:
            made.set(bias=low.vector(bias))
        low.emit(made, out)


def _tiled(low: Lowering, name: str) -> bool:
    """Whether a weight runs on tiles: the others, and those with fewer rows than lanes, run in float32."""
    weight = low.weights[name]
    return isinstance(kernels_of(weight.quant), TileKernels) and weight.shape[0] >= host_isa().lanes


def _linear_op(low: Lowering, name: str, x: int, x_stride: int, **more: Argument) -> LoweredOp:
    """The product with a weight; x: the quantised rows if it is tiled, else the float rows, `x_stride` bytes apart."""
    if scaled.is_scaled(low, name):
        return scaled.linear_op(low, name, x, x_stride, **more)
    weight = low.weights[name]
    rows, width = weight.shape
    quant, kinds = weight.quant, kernels_of(weight.quant)
    more |= {"rows": rows, "row_bytes": quant.row_bytes(width), "x": x, "blocks": width // quant.block_elements}
    if isinstance(kinds, TileKernels) and _tiled(low, name):
        return LoweredOp(
            "gemm.linear.linear", LINEAR, block_bytes=quant.block_bytes, block_columns=quant.block_elements,
            dot=low.kernel(kinds.dot), shift=kinds.shift or 0,
            x_offsets=low.offsets(low.bytes_stride(width)), x_scales=width, x_sums=int(width * kinds.sums_at),
            sum_bytes=kinds.sum_bytes, **tile_kernels(low, weight, kinds), **of_either_order(weight), **more,
        )  # fmt: skip
    more |= {"weight": of_rows(weight), "x_stride": x_stride, "width": width, "chunk": max(4, min(64, rows // 32 // 4 * 4))}
    if isinstance(kinds, TileKernels):  # fewer rows than lanes: small enough to keep as floats
        more |= {"weight": low.vector(name), "row_bytes": 4 * width}
        return LoweredOp("gemm.rows.linear_f32", ROWS, **more)
    if "." not in kinds:
        return LoweredOp(f"gemm.rows.linear_{kinds}", ROWS, **more)
    if width > MAX_GENERIC_WIDTH:
        raise UnsupportedModelError(f"the CPU backend takes {quant} rows of up to {MAX_GENERIC_WIDTH} values; {name} has {width}")
    return LoweredOp("gemm.rows.linear_generic", ROWS, dequantise=low.kernel(kinds), **more)


@RULES.rule(ops.ShortConvolution)
def lower_short_convolution(low: Lowering, op: ops.ShortConvolution, rest: tuple[Op, ...]) -> None:
    width, taps = low.weights[op.weight].shape
    by_tap = f"{op.weight} by position"
    if by_tap not in low.memory.kept:
        low.memory.kept[by_tap] = aligned(4 * width * taps, np.float32)
        weight = low.weights[op.weight]  # in several places of its files where q, k and v have a convolution each
        values = np.concatenate([weight.quant.dequantise(np.asarray(part)).reshape(-1, taps) for part in weight.parts])
        low.memory.kept[by_tap][:] = values.T.reshape(-1)
    made = LoweredOp(
        "convolution.short_convolution", CONVOLVE, x=low.at(op.x), x_stride=low.stride(op.x), out=low.at(op.out),
        out_stride=low.stride(op.out), width=width, taps=taps, weight=int(low.memory.kept[by_tap].ctypes.data),
        bias=low.vector(op.bias) if op.bias else 0, **low.store.unit(op.state),
    )  # fmt: skip
    low.emit(made, op.out)


@RULES.rule(ops.SplitHeads)
def lower_split_heads(low: Lowering, op: ops.SplitHeads, rest: tuple[Op, ...]) -> None:
    table = aligned(24 * len(op.outs), np.int64)
    table[:] = [word for out in op.outs for word in (4 * out.width // op.heads, low.at(out), low.stride(out))]
    low.memory.kept[f"parts of heads {len(low.memory.kept)}"] = table
    made = LoweredOp(
        "elementwise.split_heads", SPLIT, x=low.at(op.x), x_stride=low.stride(op.x), heads=op.heads, parts=len(op.outs),
        widths=int(table.ctypes.data),
    )  # fmt: skip
    low.emit(made, *op.outs)


def _emit_activation(low: Lowering, made: LoweredOp, gate: View, out: View) -> None:
    """Of what experts made it may leave out pairs, as they do."""
    words = low.of_pairs.get(gate)
    made.set(**words or {"parts": 1})
    low.emit(made, out)
    if words is not None:
        low.of_pairs[out] = words


@RULES.rule(ops.GatedActivation)
def lower_gated_activation(low: Lowering, op: ops.GatedActivation, rest: tuple[Op, ...]) -> None:
    kind = "gated" if op.gate.width == op.up.width else "parts"
    made = LoweredOp(
        f"elementwise.{kind}_{op.activation}", GATED, gate=low.at(op.gate), gate_stride=low.stride(op.gate), up=low.at(op.up),
        up_stride=low.stride(op.up), out=low.at(op.out), out_stride=low.stride(op.out), width=op.out.width,
        part=op.up.width // op.gate.width,
    )  # fmt: skip
    _emit_activation(low, made, op.gate, op.out)
    if kind == "gated":
        low.may_quantise(made, op.out, op.out.width)


@RULES.rule(ops.Activation)
def lower_activation(low: Lowering, op: ops.Activation, rest: tuple[Op, ...]) -> None:
    kernel = "xielu.xielu" if op.function == "xielu" else f"elementwise.single_{op.function}"
    made = LoweredOp(
        kernel, GATED, gate=low.at(op.x), gate_stride=low.stride(op.x), out=low.at(op.out),
        out_stride=low.stride(op.out), width=op.out.width,
    )  # fmt: skip
    if op.constants:
        names = ("positive", "negative", "beta", "eps")
        made.set(**{name: float_argument(value) for name, value in zip(names, op.constants, strict=True)})
    _emit_activation(low, made, op.x, op.out)
    low.may_quantise(made, op.out, op.out.width)


@RULES.rule(ops.ClampedActivation)
def lower_clamped_activation(low: Lowering, op: ops.ClampedActivation, rest: tuple[Op, ...]) -> None:
    made = LoweredOp(
        "elementwise.clamped", GATED, gate=low.at(op.gate), gate_stride=low.stride(op.gate), up=low.at(op.up),
        up_stride=low.stride(op.up), out=low.at(op.out), out_stride=low.stride(op.out), width=op.out.width,
        alpha=float_argument(op.alpha), limit=float_argument(op.limit),
    )  # fmt: skip
    _emit_activation(low, made, op.gate, op.out)


@RULES.rule(ops.LimitedActivation)
def lower_limited_activation(low: Lowering, op: ops.LimitedActivation, rest: tuple[Op, ...]) -> None:
    made = LoweredOp(
        "elementwise.limited", GATED, gate=low.at(op.gate), gate_stride=low.stride(op.gate), up=low.at(op.up),
        up_stride=low.stride(op.up), out=low.at(op.out), out_stride=low.stride(op.out), width=op.out.width,
        limit=float_argument(op.limit),
    )  # fmt: skip
    _emit_activation(low, made, op.gate, op.out)
    low.may_quantise(made, op.out, op.out.width)


@RULES.rule(ops.ScaleByPosition)
def lower_scale_by_position(low: Lowering, op: ops.ScaleByPosition, rest: tuple[Op, ...]) -> None:
    factors = np.log1p(np.arange((low.limits.context + op.offset) // op.length + 1)) * op.beta + 1
    table = aligned(4 * factors.size, np.float32)
    table[:] = factors
    low.memory.kept[f"factors by position {len(low.memory.kept)}"] = table
    made = LoweredOp(
        "elementwise.scale_by_position", SCALE, x=low.at(op.x), x_stride=low.stride(op.x), width=op.x.width,
        table=int(table.ctypes.data), length=op.length, offset=op.offset,
    )  # fmt: skip
    low.emit(made, op.x)


@RULES.rule(ops.Logits)
def lower_logits(low: Lowering, op: ops.Logits, rest: tuple[Op, ...]) -> None:
    vocab, width, chunk = low.program.vocab_size, op.x.width, low.limits.chunk
    out = low.memory.area("logits", 4 * chunk * vocab + 64 * host_isa().lanes)
    stride = low.stride(op.x)
    if _tiled(low, op.weight):
        gathered = low.memory.area("output bytes", chunk * low.bytes_stride(width))
        low.emit(low.quantise_op(op.x, gathered, low.bytes_stride(width), outputs=1))
    else:
        gathered = low.memory.area("output rows", chunk * stride)
        x = low.at(op.x)
        low.emit(LoweredOp("gemm.rows.gather", GATHER, x=x, x_stride=stride, width=width, out=gathered, out_stride=stride))
    made = _linear_op(low, op.weight, gathered, stride, out=out, out_stride=4 * vocab, outputs=1)
    if op.bias:
        made.set(bias=low.vector(op.bias))
    low.emit(made)
    if op.scale != 1.0 or op.softcap:
        scale, limit = float_argument(op.scale), float_argument(op.softcap or 0.0)
        low.emit(LoweredOp("elementwise.scale_and_cap", CAP, x=out, width=vocab, scale=scale, limit=limit))
    _lower_largest(low, out)


def _lower_largest(low: Lowering, logits: int) -> None:
    """The largest of each row, which nobody finds as quickly as those in whose caches it is."""
    vocab, chunk = low.program.vocab_size, low.limits.chunk
    tops_bytes = 4 * host_isa().lanes * -(-vocab // (LARGEST_PIECE * host_isa().lanes))
    part_bytes = (LARGEST_PART * chunk + 63) // 64 * 64
    low.emit(
        LoweredOp(
            "largest.largest", LARGEST, x=logits, width=vocab, ids=low.memory.area("largest", 8 * chunk),
            tops=low.memory.area("tops", chunk * tops_bytes), tops_bytes=tops_bytes,
            parts=low.memory.area("largest of parts", low.threads * part_bytes), part_bytes=part_bytes,
        )
    )  # fmt: skip
