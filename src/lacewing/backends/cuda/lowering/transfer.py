"""What parts of a split program transfer: copies between the activations and one buffer that the host reads and writes."""

from __future__ import annotations

from lacewing.backends.batch import StepLimits
from lacewing.backends.cuda.arguments import STEP, Pointer
from lacewing.backends.cuda.lowering.compiler import RULES, Compiler
from lacewing.backends.cuda.lowering.launches import Stage
from lacewing.program import ops
from lacewing.program.ops import View
from lacewing.program.program import Program


@RULES.rule(ops.Receive)
def receive(compiler: Compiler, op: ops.Receive) -> None:
    compiler.stages.append(Stage(compiler.launched, op.outs))
    _copies(compiler, op.outs, "in")


@RULES.rule(ops.Send)
def send(compiler: Compiler, op: ops.Send) -> None:
    compiler.stages[-1].sent = op.xs
    _copies(compiler, op.xs, "out")


def transferred(compiler: Compiler) -> Pointer:
    """View after view of a stage, each (T, width)."""
    return compiler.scratch("what is transferred", transfer_bytes(compiler.program, compiler.limits))


def transfer_bytes(program: Program, limits: StepLimits) -> int:
    """0 for a program that is not a part of one."""
    widths = [max(1, sum(view.width for view in op.views)) for op in program.ops if isinstance(op, ops.Receive | ops.Send)]
    return 4 * max(widths, default=0) * limits.chunk


def _copies(compiler: Compiler, views: tuple[View, ...], direction: str) -> None:
    before = 0
    for view in views:
        arguments = [STEP, compiler.at(view), transferred(compiler), before, view.width]
        compiler.over("transfer", {"DIRECTION": direction}, arguments, view.width)
        before += view.width
