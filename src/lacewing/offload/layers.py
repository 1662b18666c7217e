"""Which layer each op of a program belongs to, for those who share layers out to devices. The names of weights tell."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from lacewing.program import ops
from lacewing.program.ops import Op, View
from lacewing.program.program import Program

_LAYER = re.compile(r"blk\.(\d+)\.")
_ROUTED = (ops.Route, ops.ExpertLinear, ops.Combine)


@dataclass(frozen=True)
class OpLayer:
    """`layer` None: before the first layer, or, if `head`, behind the last. `experts`: of a layer's chosen experts."""

    layer: int | None
    head: bool = False
    experts: bool = False


def op_layers(program: Program) -> list[OpLayer]:
    """One for each op. What has no weights belongs to what stands before it."""
    found: list[OpLayer] = []
    layer, head, experts = None, False, False
    for op in program.ops:
        names = op.weight_names
        numbers = [int(match.group(1)) for name in names if (match := _LAYER.match(name))]
        if numbers:
            layer, head = numbers[0], False
        elif (names or isinstance(op, ops.Logits)) and layer is not None:
            head = True
        experts = experts or isinstance(op, ops.Route)
        found.append(OpLayer(None if head else layer, head, experts))
        experts = experts and not isinstance(op, ops.Combine)
    return found


def experts_together(program: Program) -> Program:
    """The same with a layer's shared experts before its router, so that nothing else stands between the chosen ones' ops."""
    done: list[Op] = []
    inside: list[Op] = []  # from a router on
    for op in program.ops:
        if inside and not _follows(op, inside):
            done.append(op)
            continue
        if isinstance(op, ops.Route) or inside:
            inside.append(op)
        else:
            done.append(op)
        if isinstance(op, ops.Combine):
            done, inside = [*done, *inside], []
    return replace(program, ops=(*done, *inside))


def _follows(op: Op, before: list[Op]) -> bool:
    """Whether an op must stay behind the others."""
    if isinstance(op, _ROUTED):
        return True
    written, touched = op.writes, op.views
    return any(_meet(touched, each.writes) or _meet(written, each.reads) for each in before)


def _meet(some: list[View], others: list[View]) -> bool:
    return any(view.overlaps(other) for view in some for other in others)
