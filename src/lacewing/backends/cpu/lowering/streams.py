"""Rules for the ops of `program/stream_ops.py`: sums and scales, residual streams, tables read by rows."""

from __future__ import annotations

from lacewing.backends.cpu.arguments import ADD_SCALE, ALTUP, MAGNITUDE, TOP_K
from lacewing.backends.cpu.lowering.context import RULES, LoweredOp, Lowering, float_argument
from lacewing.backends.cpu.lowering.dense import embed_op
from lacewing.program import stream_ops as streams
from lacewing.program.ops import Op


@RULES.rule(streams.Lookup)
def lower_lookup(low: Lowering, op: streams.Lookup, rest: tuple[Op, ...]) -> None:
    low.emit(embed_op(low, op.table, op.out, op.scale, op.other), op.out)


@RULES.rule(streams.AddScale)
def lower_add_scale(low: Lowering, op: streams.AddScale, rest: tuple[Op, ...]) -> None:
    width = op.x.width if op.add is None else op.add.width
    made = LoweredOp(
        "streams.add_scale", ADD_SCALE, x=low.at(op.x), x_stride=low.stride(op.x), out=low.at(op.out),
        out_stride=low.stride(op.out), width=width, repeats=op.x.width // width, factor=float_argument(op.factor),
    )  # fmt: skip
    if op.add is not None:
        made.set(add=low.at(op.add), add_stride=low.stride(op.add))
    if op.weight is not None:
        made.set(weight=low.vector(op.weight), weight_step=0 if low.weights[op.weight].shape == (1,) else 4)
    low.emit(made, op.out)


@RULES.rule(streams.AltUpPredict)
def lower_predict(low: Lowering, op: streams.AltUpPredict, rest: tuple[Op, ...]) -> None:
    low.emit(_altup(low, op, "predict"), op.x)


@RULES.rule(streams.AltUpCorrect)
def lower_correct(low: Lowering, op: streams.AltUpCorrect, rest: tuple[Op, ...]) -> None:
    made = _altup(low, op, "correct")
    made.set(new=low.at(op.new), new_stride=low.stride(op.new), active=op.active)
    low.emit(made, op.x)


def _altup(low: Lowering, op: streams.AltUpPredict | streams.AltUpCorrect, kind: str) -> LoweredOp:
    count = op.router.width
    return LoweredOp(
        f"streams.altup_{kind}", ALTUP, x=low.at(op.x), x_stride=low.stride(op.x), width=op.x.width // count, streams=count,
        router=low.at(op.router), router_stride=low.stride(op.router), weight=low.vector(op.weight), scale=float_argument(op.scale),
    )  # fmt: skip


@RULES.rule(streams.MatchMagnitude)
def lower_match_magnitude(low: Lowering, op: streams.MatchMagnitude, rest: tuple[Op, ...]) -> None:
    made = LoweredOp(
        "streams.match_magnitude", MAGNITUDE, x=low.at(op.x), x_stride=low.stride(op.x), like=low.at(op.like),
        like_stride=low.stride(op.like), width=op.x.width, least=float_argument(op.least),
    )  # fmt: skip
    low.emit(made, op.x)


@RULES.rule(streams.GaussianTopK)
def lower_gaussian_top_k(low: Lowering, op: streams.GaussianTopK, rest: tuple[Op, ...]) -> None:
    made = LoweredOp(
        "streams.gaussian_top_k", TOP_K, x=low.at(op.x), x_stride=low.stride(op.x), width=op.x.width,
        cutoff=float_argument(op.cutoff),
    )  # fmt: skip
    low.emit(made, op.x)
