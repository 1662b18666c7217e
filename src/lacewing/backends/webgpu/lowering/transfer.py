"""What parts of a split program transfer: copies between the activations and one buffer that the host reads and writes."""

from __future__ import annotations

from lacewing.backends.batch import StepLimits
from lacewing.backends.webgpu.device.device import Slice
from lacewing.backends.webgpu.lowering.compiler import RULES, Compiler
from lacewing.backends.webgpu.lowering.dispatches import Stage
from lacewing.program import ops
from lacewing.program.ops import View
from lacewing.program.program import Program


@RULES.rule(ops.Receive)
def receive(compiler: Compiler, op: ops.Receive) -> None:
    compiler.stages.append(Stage(compiler.dispatched, op.outs))
    _copies(compiler, op.outs, "in")
    for view in op.outs:
        compiler.written(view)
    compiler.fresh.clear()


@RULES.rule(ops.Send)
def send(compiler: Compiler, op: ops.Send) -> None:
    compiler.stages[-1].sent = op.xs
    _copies(compiler, op.xs, "out")


def transferred(compiler: Compiler) -> Slice:
    """View after view of a stage, each (T, width)."""
    return compiler.scratch("what is transferred", transfer_bytes(compiler.program, compiler.limits))


def transfer_bytes(program: Program, limits: StepLimits) -> int:
    """0 for a program that is not a part of one."""
    widths = [max(1, sum(view.width for view in op.views)) for op in program.ops if isinstance(op, ops.Receive | ops.Send)]
    return 4 * max(widths, default=0) * limits.chunk


def _copies(compiler: Compiler, views: tuple[View, ...], way: str) -> None:
    before = 0
    for view in views:
        across = -(-view.width // 64)
        constants = {"place": compiler.at(view), "width": view.width, "before": before, "way": way}
        compiler.dispatch("transfer", constants, [transferred(compiler)], lambda run, across=across: (across, run.tokens, 1))  # type: ignore[misc]
        before += view.width
