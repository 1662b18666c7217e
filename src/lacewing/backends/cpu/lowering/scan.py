"""The rule of the selective scan."""

from __future__ import annotations

import numpy as np

from lacewing.backends.cpu.arguments import MOST_SCAN_STATES, SCAN
from lacewing.backends.cpu.lowering.context import RULES, LoweredOp, Lowering, float_argument
from lacewing.backends.cpu.memory import aligned
from lacewing.errors import UnsupportedModelError
from lacewing.program import ops
from lacewing.program.ops import Op


@RULES.rule(ops.SelectiveScan)
def lower_selective_scan(low: Lowering, op: ops.SelectiveScan, rest: tuple[Op, ...]) -> None:
    states = op.b.width // op.groups
    if states > MOST_SCAN_STATES:
        raise UnsupportedModelError(f"the CPU backend takes scans of up to {MOST_SCAN_STATES} states; {op.decay} has {states}")
    places: dict[str, int] = {}
    for name, view in (("x", op.x), ("b", op.b), ("c", op.c), ("dt", op.dt), ("out", op.out)):
        places |= {name: low.at(view), f"{name}_stride": low.stride(view)}
    made = LoweredOp(
        "scan.selective_scan", SCAN, **places, heads=op.heads, groups=op.groups, width=op.x.width // op.heads, states=states,
        decay=_decay(low, op), skip=low.vector(op.skip), bias=low.vector(op.bias), low=float_argument(op.limits[0]),
        high=float_argument(op.limits[1]), **low.store.unit(op.state),
    )  # fmt: skip
    low.emit(made, op.out)


def _decay(low: Lowering, op: ops.SelectiveScan) -> int:
    """Address of the decays, float32 (H,)."""
    if not op.log_decay:
        return low.vector(op.decay)
    name = f"{op.decay} of its logarithm"
    if name not in low.memory.kept:
        weight = low.weights[op.decay]
        low.memory.kept[name] = aligned(4 * op.heads, np.float32)
        low.memory.kept[name][:] = -np.exp(weight.quant.dequantise(np.asarray(weight.data)))
    return int(low.memory.kept[name].ctypes.data)
