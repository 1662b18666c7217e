"""Which neighbouring ops of a program can be one dispatch: nothing else may see what lies between them."""

from __future__ import annotations

from collections.abc import Sequence

from lacewing.program import ops
from lacewing.program.ops import Op, View

Activation = ops.GatedActivation | ops.ClampedActivation | ops.LimitedActivation


def unused(program: Sequence[Op], index: int, view: View) -> bool:
    """Whether no op from `index` on reads what stands in the view now."""
    for op in program[index:]:
        if any(view.overlaps(read) for read in op.reads):
            return False
        covered = (w for w in op.writes if w.buffer == view.buffer)
        if any(w.start <= view.start and view.start + view.width <= w.start + w.width for w in covered):
            return True
    return True


def activation_after(program: Sequence[Op], index: int) -> Activation | None:
    """The activation that follows an ExpertLinear with two outs and is all that becomes of them."""
    op, after = program[index], program[index + 1] if index + 1 < len(program) else None
    if not isinstance(op, ops.ExpertLinear) or not isinstance(after, Activation):
        return None
    if (
        len(op.outs) != 2
        or op.outs[0].width != op.outs[1].width
        or (after.gate, after.up) != op.outs
        or any(after.out.overlaps(view) for view in op.reads)
    ):
        return None
    gone = all(view == after.out or unused(program, index + 2, view) for view in op.outs)
    apart = all(view == after.out or not view.overlaps(after.out) for view in op.outs)
    return after if gone and apart else None


def sum_after(program: Sequence[Op], index: int, shared: bool = False) -> int | None:
    """Where the Combine stands that is all that becomes of an ExpertLinear with one out, and could do its work as well.

    `shared`: of a mixture that two devices share, too, where experts of the id -1 do not count.
    """
    op = program[index]
    if not isinstance(op, ops.ExpertLinear) or not op.separate or len(op.outs) != 1 or op.factor is not None:
        return None
    inputs = [op.x, op.ids]
    for later in range(index + 1, len(program)):
        after = program[later]
        if isinstance(after, ops.Combine) and after.x == op.outs[0]:
            inputs += [after.weights] if after.weights is not None else []
            alike = after.ids is None or (shared and after.ids == op.ids)
            kept = alike and not any(after.out.overlaps(view) for view in inputs)
            return later if kept and unused(program, later + 1, op.outs[0]) else None
        if any(op.outs[0].overlaps(view) for view in after.views) or any(i.overlaps(w) for i in inputs for w in after.writes):
            return None
    return None


def experts_before(program: Sequence[Op], index: int) -> ops.ExpertLinear | None:
    """The ExpertLinear whose `sum_after` is the Combine at `index`."""
    for earlier in range(index - 1, -1, -1):
        op = program[earlier]
        if isinstance(op, ops.ExpertLinear) and sum_after(program, earlier) == index:
            return op
    return None
