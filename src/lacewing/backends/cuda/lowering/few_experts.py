"""Mixtures in runs of few tokens, where each token goes to its experts by itself: what several ops are made of in one kernel."""

from __future__ import annotations

from lacewing.backends.cuda.arguments import NULL, Struct, blocks
from lacewing.backends.cuda.kernels import kernel
from lacewing.backends.cuda.lowering.chosen import Chosen, chosen
from lacewing.backends.cuda.lowering.compiler import Compiler
from lacewing.backends.cuda.lowering.inputs import FROM_EXPERTS, as_bytes, byte_buffers
from lacewing.backends.cuda.lowering.launches import Grid
from lacewing.backends.cuda.lowering.products import shared_bytes
from lacewing.backends.gpu.fusions import Activation, activation_after, sum_after, unused
from lacewing.backends.gpu.layouts import GROUP
from lacewing.program import ops
from lacewing.program.ops import View

WARPS, SUM_ROWS = 8, 4  # of a block of `expert_sum`: warps, rows that a warp makes at a time
MOST_SUM_BYTES = 2**15  # of its shared memory


def gated_experts(compiler: Compiler, products: list[Chosen]) -> Activation | None:
    """A gate's product and the activation that is all that becomes of it in one kernel: that activation; None without one.

    The result is left as bytes where nothing else of it is read.
    """
    program, index, it = compiler.program.ops, compiler.index, products[0]
    after = activation_after(program, index)
    if after is None or len(products) > 1 or not it.few or it.op.separate or it.rows % GROUP:
        return None
    function, alpha, limit = _function(after)
    macros, out = kernel("expert_gated").macros, compiler.at(after.out)
    if function not in macros["FUNCTION"] or it.matrix.quant not in macros["QUANT"] or out.base % 4 or out.stride % 4:
        return None
    op, matrix, active = it.op, it.matrix, it.op.ids.width
    if matrix.layout.floats:
        codes = byte_buffers(compiler, "bytes of activations")
    else:
        codes = as_bytes(compiler, op.x, matrix.groups, False, it.few)
    as_codes = _takes_bytes(compiler, it, after.out)
    as_floats = not as_codes or not unused(program, index + 3, after.out)
    made = byte_buffers(compiler, FROM_EXPERTS) if as_codes else (NULL, NULL)
    shape = Struct((it.rows, matrix.groups, matrix.columns, active, int(op.interleaved), alpha, limit))
    arguments = [
        compiler.at(op.x), *codes, compiler.at(op.ids), compiler.at_or_none(op.factor), matrix.planes, it.bias,
        out if as_floats else None, *made, shape,
    ]  # fmt: skip
    compiler.launch(
        "expert_gated", {"QUANT": matrix.quant, "FUNCTION": function}, arguments,
        lambda run: Grid(it.rows // GROUP, active, run.tokens) if run.tokens <= it.few else None, shared=shared_bytes(matrix),
    )  # fmt: skip
    if as_codes:
        compiler.prepared[FROM_EXPERTS] = (after.out, it.few), index + 2
    return after


def _function(op: Activation) -> tuple[str, float, float]:
    """The kernel's name for it, with the factor and the limit that some have."""
    if isinstance(op, ops.ClampedActivation):
        return "clamped", float(op.alpha), float(op.limit)
    return ("limited", 0.0, float(op.limit)) if isinstance(op, ops.LimitedActivation) else (op.activation, 0.0, 0.0)


def _takes_bytes(compiler: Compiler, it: Chosen, out: View) -> bool:
    """Whether the op behind the activation multiplies its result, as bytes, with the same experts in the same runs."""
    program, index = compiler.program.ops, compiler.index + 2
    op = program[index] if index < len(program) else None
    if not isinstance(op, ops.ExpertLinear) or not op.separate or op.x != out or op.ids != it.op.ids:
        return False
    takers = chosen(compiler, op)
    return all(each.few == it.few and not each.matrix.layout.floats for each in takers)


def sum_after_experts(compiler: Compiler, index: int) -> tuple[int, Chosen] | None:
    """Where the Combine stands that makes the ExpertLinear at `index` as well, in runs of few tokens, and that product."""
    program = compiler.program.ops
    op, later = program[index], sum_after(program, index, shared=True)
    if later is None or not isinstance(op, ops.ExpertLinear):
        return None
    after, between = program[later], program[index + 1 : later]
    if not isinstance(after, ops.Combine) or any(isinstance(each, ops.ExpertLinear) for each in between):
        return None  # whose bytes would take the place of those that are multiplied
    it, *others = chosen(compiler, op)
    whole = not others and after.active == op.ids.width and after.out.width == it.rows
    fits = whole and _sum_bytes(after.active) <= MOST_SUM_BYTES
    return (later, it) if fits and it.few and it.matrix.quant in kernel("expert_sum").macros["QUANT"] else None


def _sets(active: int) -> int:
    """Times SUM_ROWS rows of a block: so many that each warp has an expert's."""
    return blocks(WARPS, active)


def _sum_bytes(active: int) -> int:
    return 4 * active * (_sets(active) * SUM_ROWS + 2)


def summed_experts(compiler: Compiler, op: ops.Combine) -> int:
    """The product before it and the sum in one kernel, where there is one; in runs of up to how many tokens."""
    before = (at for at in range(compiler.index - 1, -1, -1) if isinstance(compiler.program.ops[at], ops.ExpertLinear))
    index = next(before, None)
    found = None if index is None else sum_after_experts(compiler, index)
    if found is None or found[0] != compiler.index:
        return 0
    it = found[1]
    linear, matrix, sets = it.op, it.matrix, _sets(op.active)
    codes = as_bytes(compiler, linear.x, matrix.groups * op.active, False, it.few)
    arguments = [
        *codes, compiler.at(linear.ids), compiler.at_or_none(op.weights), matrix.planes, it.bias, compiler.at_or_none(op.add),
        compiler.at(op.out), it.rows, matrix.groups, op.active, sets,
    ]  # fmt: skip
    across = blocks(it.rows, sets * SUM_ROWS)
    compiler.launch(
        "expert_sum", {"QUANT": matrix.quant}, arguments, lambda run: Grid(across, run.tokens) if run.tokens <= it.few else None,
        shared=_sum_bytes(op.active),
    )  # fmt: skip
    return it.few
