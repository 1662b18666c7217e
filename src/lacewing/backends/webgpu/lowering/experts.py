"""Mixtures of experts: the router, the linears of the chosen experts, their sum.

A few tokens read their experts' rows by themselves; many are sorted by expert first, so that an expert's rows are read once.
The two ways add up in another order and differ in the last bits; neither depends on the other tokens of a run.
"""

from __future__ import annotations

from dataclasses import replace

from lacewing.backends.gpu.fusions import Activation, activation_after, experts_before, sum_after
from lacewing.backends.gpu.layouts import GROUP
from lacewing.backends.gpu.stacks import joined
from lacewing.backends.webgpu.kernels import number
from lacewing.backends.webgpu.lowering.compiler import RULES, Compiler
from lacewing.backends.webgpu.lowering.dispatches import Router
from lacewing.backends.webgpu.lowering.expert_biases import expert_bias
from lacewing.backends.webgpu.lowering.expert_tiles import Product, above, between, gemm, inputs, up_to
from lacewing.backends.webgpu.lowering.forms import forms_of
from lacewing.backends.webgpu.lowering.rows import gated
from lacewing.errors import UnsupportedModelError
from lacewing.program import ops

MOST_EXPERTS = 1024  # what the router's kernel has room for
THREADS, CODED_THREADS, SUM_THREADS = 256, 1024, 128  # of a workgroup for few tokens; measured on an H200
LOADS = 6  # groups of weights that a thread of them loads before it uses the first


@RULES.rule(ops.Route)
def route(compiler: Compiler, op: ops.Route) -> None:
    experts = op.logits.width
    if experts > MOST_EXPERTS:
        raise UnsupportedModelError(
            f"the WebGPU backend routes to {MOST_EXPERTS} experts at most, not {experts}; use `backend='cpu'`"
        )
    constants = {
        "logits": compiler.at(op.logits), "ids": compiler.at(op.ids), "weights": compiler.at(op.weights), "experts": experts,
        "active": op.ids.width, "gating": op.gating, "biased": op.bias is not None, "scaled": op.scales is not None,
        "groups": op.groups, "groups_used": op.groups_used, "group_best": op.group_best, "renormalise": op.renormalise,
        "scale": op.scale, "jitter": op.jitter,
        "threads": min(256, max(32, 1 << (experts - 1).bit_length())), "watched": False,
    }  # fmt: skip
    bindings = [compiler.vector(name) for name in (op.bias, op.scales) if name is not None]
    whole = compiler.whole(constants)
    compiler.routers.append(Router(op.layer, experts, op.ids.width, compiler.dispatched, whole, bindings))
    compiler.dispatch("route", constants, bindings, lambda run: (1, run.tokens, 1))
    compiler.written(op.ids)
    compiler.written(op.weights)
    compiler.fresh.clear()


@RULES.rule(ops.ExpertLinear)
def expert_linear(compiler: Compiler, op: ops.ExpertLinear) -> None:
    products = _products(compiler, op)
    if sum_after(compiler.program.ops, compiler.index) is not None and _whole(products):
        return  # the lowering of the sum does it
    after = activation_after(compiler.program.ops, compiler.index) if len(products) == 1 else None
    for product in products:
        if after is None:
            gemv(compiler, product)
        gemm(compiler, product)
    for out in op.outs:
        compiler.written(out)
    if after is not None:
        _activated(compiler, products[0], after)
        compiler.done.add(compiler.index + 1)


def _products(compiler: Compiler, op: ops.ExpertLinear) -> list[Product]:
    """One for all weights of the op where they can be one matrix, else one a weight."""
    biases, key = op.biases or (None,) * len(op.weights), ("experts", *op.weights)
    if key not in compiler.matrices:
        weights = [compiler.weights[name] for name in op.weights]
        stack = weights[0] if len(weights) == 1 else None if op.transposed else joined(weights)
        if stack is None:
            split = zip(op.weights, op.outs, biases, strict=True)
            singles = [replace(op, weights=(name,), outs=(out,), biases=(bias,)) for name, out, bias in split]
            return [product for single in singles for product in _products(compiler, single)]
        compiler.matrices[key] = compiler.uploader.matrix([stack], stack.shape[2 if op.transposed else 1], op.transposed)
    matrix = compiler.matrices[key]
    bias = expert_bias(compiler, op, matrix, biases)
    dotted = compiler.variant.dot and not matrix.layout.floats
    return [Product(op, matrix, op.outs, bias, dotted)]


def _whole(products: list[Product]) -> bool:
    return len(products) == 1 and len(products[0].matrix.shards) == 1


def gemv(compiler: Compiler, product: Product, activation: Activation | None = None, coded: bool = False) -> None:
    """Dispatches of runs of few tokens, with the activation and its q8 form where given."""
    lanes = compiler.variant.lanes
    threads = min(CODED_THREADS, compiler.device.most_threads, GROUP * lanes) if coded else THREADS
    tile = GROUP if coded else threads // lanes * (2 if product.dotted else 1)
    constants = {
        **inputs(compiler, product), "threads": threads, "tile": tile, "activation": None, "q8": None,
        "unrolled": unrolled(-(-product.matrix.groups // lanes), max(1, LOADS * threads // (lanes * tile * product.parts))),
    }  # fmt: skip
    if activation is not None:
        constants |= {"activation": _formula(activation), "outs": [compiler.at(activation.out)]}
        constants["q8"] = compiler.arena.quantised(activation.out) if coded else None
    for shard in product.matrix.shards:
        constants |= {"first_expert": shard.first // (product.rows * product.parts), "experts": product.experts(shard)}
        compiler.dispatch(
            "expert_gemv",
            constants,
            product.bindings(shard),
            up_to(product.gemv_tokens, lambda run: (-(-product.rows // tile), product.active, run.tokens)),
        )


def _formula(op: Activation) -> str:
    if isinstance(op, ops.ClampedActivation):
        return f"clamped(y_0, y_1, {number(op.alpha)}, {number(op.limit)})"
    if isinstance(op, ops.LimitedActivation):
        return f"limited(silu(y_0), y_1, {number(op.limit)})"
    return f"{op.activation}(y_0) * y_1"


def _activated(compiler: Compiler, product: Product, op: Activation) -> None:
    """Few tokens: all in one dispatch. Many: the activation, and its bytes if these are read, after the tiles."""
    few, read = product.gemv_tokens, forms_of(compiler, op.out, op).codes
    coded = product.dotted and product.rows % GROUP == 0 and op.out.start % GROUP == 0
    gemv(compiler, product, op, coded)
    if isinstance(op, ops.ClampedActivation):
        clamped(compiler, op, product.gemv_tokens)
    else:
        gated(compiler, op, product.gemv_tokens)  # which may write the bytes
    made = compiler.quantised_tokens(op.out) > 0
    tokens = (few, read) if coded else (0, min(few, read))
    if coded != made and tokens[0] < tokens[1]:  # only one of the two made bytes
        groups = op.out.width // GROUP
        constants = {"x": compiler.at(op.out), "q8": compiler.arena.quantised(op.out), "groups": groups}
        compiler.dispatch("quantise", constants, [], between(tokens, lambda run: (-(-groups // 64), run.tokens, 1)))
    if coded or made:
        compiler.mark_quantised(op.out, read)


@RULES.rule(ops.ClampedActivation)
def clamped_activation(compiler: Compiler, op: ops.ClampedActivation) -> None:
    clamped(compiler, op, 0)


def clamped(compiler: Compiler, op: ops.ClampedActivation, more_than: int) -> None:
    """The activation, for runs of more tokens than that."""
    constants = {
        "gate": compiler.at(op.gate), "up": compiler.at(op.up), "out": compiler.at(op.out), "width": op.out.width,
        "alpha": op.alpha, "limit": op.limit,
    }  # fmt: skip
    compiler.dispatch("clamped", constants, [], above(more_than, lambda run: (-(-op.out.width // 64), run.tokens, 1)))
    compiler.written(op.out)


def unrolled(steps: int, most: int) -> int:
    """Groups of a row that a thread loads before it uses the first: so many that little is left over."""
    return min(range(min(steps, most), 0, -1), key=lambda count: -steps % count)


@RULES.rule(ops.Combine)
def combine(compiler: Compiler, op: ops.Combine) -> None:
    experts, more_than = experts_before(compiler.program.ops, compiler.index), 0
    if experts is not None:
        products = _products(compiler, experts)
        if _whole(products):
            _summed(compiler, products[0], op)
            gemm(compiler, products[0])
            compiler.written(experts.outs[0])
            more_than = products[0].gemv_tokens
    constants = {
        "x": compiler.at(op.x), "weights": compiler.at(op.weights) if op.weights is not None else None, "out": compiler.at(op.out),
        "add": compiler.at(op.add) if op.add is not None else None, "active": op.active, "width": op.out.width,
        "ids": compiler.at(op.ids) if op.ids is not None else None,
    }  # fmt: skip
    compiler.dispatch("combine", constants, [], above(more_than, lambda run: (-(-op.out.width // 64), run.tokens, 1)))
    compiler.written(op.out)


def _summed(compiler: Compiler, product: Product, op: ops.Combine) -> None:
    """Few tokens: the last linear of the experts and their sum in one dispatch."""
    steps = -(-product.active * product.matrix.groups // compiler.variant.lanes)
    constants = {
        **inputs(compiler, product), "threads": SUM_THREADS, "unrolled": unrolled(steps, LOADS), "out": compiler.at(op.out),
        "weights": compiler.at(op.weights) if op.weights is not None else None,
        "add": compiler.at(op.add) if op.add is not None else None,
    }  # fmt: skip
    teams = SUM_THREADS // compiler.variant.lanes
    (shard,) = product.matrix.shards
    grid = up_to(product.gemv_tokens, lambda run: (-(-product.rows // teams), run.tokens, 1))
    compiler.dispatch("expert_sum", constants, product.bindings(shard), grid)
