"""What must hold of the ops of a mixture of experts; see check.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from lacewing.program import ops
from lacewing.program.checker import Checker, require
from lacewing.program.operands import Op

GATINGS = ("softmax", "sigmoid", "sparsemixer")


def _route(c: Checker, op: ops.Route) -> None:
    experts, active = op.logits.width, op.ids.width
    require(1 <= active <= experts, f"{active} active of {experts} experts")
    require(op.weights.width == active, f"{op.weights.width} weights for {active} ids")
    views = (op.logits, op.ids, op.weights)
    require(not any(a.overlaps(b) for i, a in enumerate(views) for b in views[:i]), "logits, ids and weights overlap")
    require(op.gating in GATINGS, f"gating {op.gating!r} is none of {', '.join(GATINGS)}")
    require(op.groups >= 1 and experts % op.groups == 0, f"{experts} experts in {op.groups} groups")
    plain = op.bias is None and op.groups == 1 and op.jitter >= 0
    require(op.gating != "sparsemixer" or plain, f"sparsemixer with a bias, groups or a jitter of {op.jitter}")
    size = experts // op.groups
    require(1 <= op.groups_used <= op.groups, f"{op.groups_used} of {op.groups} groups")
    require(active <= op.groups_used * size, f"{active} active experts from {op.groups_used} groups of {size}")
    require(op.group_best in (1, 2) and (op.groups == 1 or op.group_best <= size), f"the best {op.group_best} of {size}")
    require(math.isfinite(op.scale), f"scale {op.scale}")
    for weight in (op.bias, op.scales):
        if weight is not None:
            c.weight(weight, experts)


def _expert_linear(c: Checker, op: ops.ExpertLinear) -> None:
    active = op.ids.width
    require(op.ids in c.routed, f"{ops.show(op.ids)} does not hold the ids of a Route")
    experts = c.routed[op.ids] or next(iter(c.program.weights.get(op.weights[0], ())), 0)
    inputs, rest = divmod(op.x.width, active if op.separate else 1)
    require(rest == 0 and all(out.width % active == 0 for out in op.outs), f"a width is not {active} equal parts")
    outputs = [out.width // active for out in op.outs]
    if (len(op.weights), len(op.outs)) == (1, 2):
        require(outputs[0] == outputs[1], "the two outs differ in width")
        outputs = [2 * outputs[0]]
    else:
        require(len(op.weights) == len(op.outs) > 0, f"{len(op.weights)} weights for {len(op.outs)} outs")
        require(not op.interleaved, "interleaved needs one weight with two outs")
    require(len(op.biases) in (0, len(op.weights)), f"{len(op.biases)} biases for {len(op.weights)} weights")
    for weight, output in zip(op.weights, outputs, strict=True):
        c.weight(weight, experts, *((inputs, output) if op.transposed else (output, inputs)))
    for bias, output in zip(op.biases, outputs, strict=False):
        if bias is not None:
            c.weight(bias, experts, output)
    require(op.factor is None or op.factor.width == active, "factor is not one value an active expert")
    for index, out in enumerate(op.outs):
        require(not any(out.overlaps(view) for view in (*op.reads, *op.outs[:index])), f"{ops.show(out)} overlaps")


def _dispatch(c: Checker, op: ops.Dispatch) -> None:
    require(op.ids in c.routed, f"{ops.show(op.ids)} does not hold the ids of a Route")
    require(c.routed[op.ids] in (None, op.experts), f"{op.experts} experts, the router has {c.routed[op.ids]}")
    require(1 <= op.resident < op.experts, f"{op.resident} of {op.experts} experts are resident")
    require(op.here.width == op.there.width == op.ids.width, "ids, here and there differ in width")
    views = (op.ids, op.here, op.there)
    require(not any(a.overlaps(b) for i, a in enumerate(views) for b in views[:i]), "ids, here and there overlap")


def _combine(c: Checker, op: ops.Combine) -> None:
    require(op.active >= 1 and op.x.width == op.active * op.out.width, f"x has width {op.x.width}, out {op.out.width}")
    require(op.weights is None or op.weights.width == op.active, "weights are not one value an active expert")
    require(op.ids is None or (op.ids in c.routed and op.ids.width == op.active), "ids are not those of the active experts")
    require(op.add is None or op.add.width == op.out.width, "add and out differ in width")
    require(op.add is None or op.add == op.out or not op.add.overlaps(op.out), "add must be out itself or lie apart from it")
    read = (view for view in (op.x, op.weights, op.ids) if view is not None)
    require(not any(op.out.overlaps(view) for view in read), "out overlaps x, weights or ids")


RULES: dict[type[Op], Callable[[Checker, Any], None]] = {
    ops.Route: _route,
    ops.Dispatch: _dispatch,
    ops.ExpertLinear: _expert_linear,
    ops.Combine: _combine,
}
