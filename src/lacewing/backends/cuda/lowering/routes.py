"""Routers: the choice of experts, in runs of few tokens together with the product that it is made from."""

from __future__ import annotations

from lacewing.backends.cuda.arguments import KEPT, NULL, Argument, Joined, Outs, Struct, blocks
from lacewing.backends.cuda.kernels import kernel
from lacewing.backends.cuda.lowering.chosen import chosen
from lacewing.backends.cuda.lowering.compiler import RULES, Compiler
from lacewing.backends.cuda.lowering.inputs import as_bytes, byte_buffers, few_routed
from lacewing.backends.cuda.lowering.launches import DECODE_TOKENS, Grid, Router
from lacewing.backends.cuda.lowering.products import TENSOR, Product, product
from lacewing.backends.gpu.layouts import GROUP
from lacewing.errors import UnsupportedModelError
from lacewing.program import ops

MOST_EXPERTS = 4096  # what the kernels have shared memory for


@RULES.rule(ops.Route)
def route(compiler: Compiler, op: ops.Route) -> None:
    _choose(compiler, op, _decisions(compiler, op), 1)


def _choose(compiler: Compiler, op: ops.Route, decisions: list[Argument], fewest: int) -> None:
    """In runs of `fewest` tokens and more."""
    arguments = [compiler.at(op.logits), *decisions]
    compiler.launch(
        "route", {"GATING": op.gating}, arguments, lambda run: Grid(1, run.tokens) if run.tokens >= fewest else None,
        shared=_shared_bytes(op),
    )  # fmt: skip


def _decisions(compiler: Compiler, op: ops.Route) -> list[Argument]:
    """Where they go and how they are made, the last arguments of both kernels."""
    experts, active = op.logits.width, op.ids.width
    if experts > MOST_EXPERTS:
        raise UnsupportedModelError(
            f"the CUDA backend routes to {MOST_EXPERTS} experts at most, not {experts}; use `backend='cpu'`"
        )
    router = Router(op.layer, experts, active, sum(each.words for each in compiler.routers))
    compiler.routers.append(router)
    stride = sum(each.logits.width + each.ids.width for each in compiler.program.ops if isinstance(each, ops.Route))
    places = (compiler.at(op.ids), compiler.at(op.weights), compiler.vector(op.bias), compiler.vector(op.scales), KEPT)
    numbers = Struct((
        experts, active, op.groups, op.groups_used, op.group_best, int(op.renormalise), float(op.scale), float(op.jitter),
    ))  # fmt: skip
    return [Joined((*places, Struct((stride, router.first)))), numbers]


def _fours(experts: int) -> int:
    return 4 * blocks(experts, 4)


def _shared_bytes(op: ops.Route) -> int:
    experts = op.logits.width
    return 4 * (_fours(experts) + experts + 2 * op.ids.width + op.groups)


def routed(compiler: Compiler, op: ops.Linear) -> bool:
    """Lower a router's product and the choice behind it, one kernel in runs of few tokens; False: there is none for it."""
    program, index = compiler.program.ops, compiler.index
    after = program[index + 1] if index + 1 < len(program) else None
    if not isinstance(after, ops.Route) or op.outs != (after.logits,) or after.logits.width > MOST_EXPERTS:
        return False
    matrix, x, shared = compiler.matrix(op.weights), compiler.at(op.x), 4 * _fours(after.logits.width) + _shared_bytes(after)
    whole = matrix.columns % GROUP == 0 and x.base % 4 == 0 and x.stride % 4 == 0
    if not whole or matrix.quant not in kernel("router").macros["QUANT"] or shared > compiler.device.most_shared:
        return False
    experts = matrix.rows
    few = few_routed(experts, after.ids.width) if compiler.device.number >= TENSOR else 1  # as for experts
    _bytes_for_experts(compiler, op)
    floats = matrix.layout.floats
    codes = byte_buffers(compiler, "bytes of activations") if floats else as_bytes(compiler, op.x, matrix.groups, False, few)
    bias = compiler.vector(op.biases[0]) if op.biases else NULL
    counters, decisions = compiler.zeros("counters of routers", 4 * DECODE_TOKENS), _decisions(compiler, after)
    compiler.launch(
        "router", {"QUANT": matrix.quant, "GATING": after.gating},
        [x, *codes, matrix.planes, bias, compiler.at(after.logits), counters, matrix.groups, *decisions],
        lambda run: Grid(experts, run.tokens) if run.tokens <= few else None, shared=shared,
    )  # fmt: skip
    product(compiler, Product(op.x, matrix, Outs((compiler.at(after.logits),), (experts,)), bias), few + 1)
    _choose(compiler, after, decisions, few + 1)
    compiler.done.add(index + 1)
    return True


def _bytes_for_experts(compiler: Compiler, op: ops.Linear) -> None:
    """Have the norm before a router make the bytes that the experts take: behind the router it would be a launch of its own."""
    program, index = compiler.program.ops, compiler.index + 2
    after = program[index] if index < len(program) else None
    if isinstance(after, ops.ExpertLinear) and after.x == op.x and not after.separate:
        takers = [it for it in chosen(compiler, after) if it.few and not it.matrix.layout.floats]
        if takers:
            as_bytes(compiler, op.x, takers[0].matrix.groups, False, takers[0].few)
