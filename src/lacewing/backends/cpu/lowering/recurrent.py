"""Rules for ops whose state of constant size is carried from token to token."""

from __future__ import annotations

from lacewing.backends.cpu.arguments import DELTA, DELTA_TILE, SCRATCH_BYTES
from lacewing.backends.cpu.isa import host_isa
from lacewing.backends.cpu.lowering.context import RULES, LoweredOp, Lowering, float_argument
from lacewing.errors import UnsupportedModelError
from lacewing.program import ops
from lacewing.program.ops import Op


@RULES.rule(ops.GatedDelta)
def lower_gated_delta(low: Lowering, op: ops.GatedDelta, rest: tuple[Op, ...]) -> None:
    lanes = host_isa().lanes
    entry = 16 + 8 * (op.key_width + lanes) if op.by_row else 16
    block = 8 * lanes * op.key_width  # bytes of two registers of columns
    if 16 * lanes + DELTA_TILE * entry + block * -(-op.value_width // (2 * lanes)) > SCRATCH_BYTES:
        raise UnsupportedModelError(f"the CPU backend has no room for states of {op.key_width} x {op.value_width} a head")
    made = LoweredOp(
        "delta.gated_delta_by_row" if op.by_row else "delta.gated_delta", DELTA, heads=op.heads, key_heads=op.key_heads,
        key_width=op.key_width, value_width=op.value_width, scale=float_argument(op.scale), eps=float_argument(op.eps),
        log_rate=int(op.log_rate), tiled=int(op.tiled), rate=low.vector(op.rate), bias=low.vector(op.bias),
        **low.store.unit(op.state),
    )  # fmt: skip
    for name in ("q", "k", "v", "decay", "beta", "out"):
        view = getattr(op, name)
        made.set(**{name: low.at(view), f"{name}_stride": low.stride(view)})
    low.emit(made, op.out)
