"""The selective scan: token by token, with a block of a head's state in the registers of a workgroup."""

from __future__ import annotations

import math

from lacewing.backends.webgpu.lowering.compiler import RULES, Compiler
from lacewing.program import ops

SLICES = 4  # threads that share a column
MOST_COLUMNS = 64


@RULES.rule(ops.SelectiveScan)
def selective_scan(compiler: Compiler, op: ops.SelectiveScan) -> None:
    width, states = op.x.width // op.heads, op.b.width // op.groups
    columns, low, high = min(width, MOST_COLUMNS), *op.limits
    places = {name: compiler.at(view) for name, view in (("x", op.x), ("b", op.b), ("c", op.c), ("dt", op.dt), ("out", op.out))}
    constants = {
        **places, "width": width, "states": states, "heads": op.heads, "groups": op.groups, "columns": columns, "slices": SLICES,
        "each": -(-states // SLICES), "low": low, "high": None if math.isinf(high) else high, "log_decay": op.log_decay,
        "fixed_group": compiler.fixed_group(op.state),
    }  # fmt: skip
    weights = [compiler.vector(name) for name in (op.decay, op.skip, op.bias)]
    units = compiler.states.buffers[op.state]
    grid = (-(-width // columns), op.heads)
    compiler.dispatch("selective_scan", constants, [units, *weights], lambda run: (*grid, run.parts))
    compiler.written(op.out)
