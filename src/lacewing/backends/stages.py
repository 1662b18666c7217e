"""The stages of a part of a split program: other devices compute in between (`program.ops.Receive` and `Send`)."""

from __future__ import annotations

from dataclasses import dataclass, field

from lacewing.errors import BackendError
from lacewing.program.operands import Op, View
from lacewing.program.ops import Receive, Send
from lacewing.program.program import Program


@dataclass
class Stage:
    """What comes from other devices, what is done, what goes to them."""

    received: tuple[View, ...] = ()
    ops: list[Op] = field(default_factory=list)
    sent: tuple[View, ...] = ()


def stages(program: Program) -> list[Stage]:
    """A program that is not split is one stage."""
    found: list[Stage] = []
    for op in program.ops:
        if isinstance(op, Receive):
            found.append(Stage(op.outs))
        elif isinstance(op, Send):
            found[-1].sent = op.xs
        else:
            if not found:
                found.append(Stage())
            found[-1].ops.append(op)
    return found


def is_part(program: Program) -> bool:
    """Whether it runs in stages only."""
    return any(isinstance(op, Receive) for op in program.ops)


def not_alone() -> BackendError:
    """Somebody called `run` of a part."""
    return BackendError("a part of a program runs in stages; run the whole")
