"""Mixtures of experts: the router, the linears of the chosen experts, their sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lacewing.backends.cuda.arguments import KEPT, NULL, STEP, Argument, Matrix, Outs, Pointer, Struct, blocks
from lacewing.backends.cuda.kernels import kernel
from lacewing.backends.cuda.lowering.compiler import RULES, Compiler
from lacewing.backends.cuda.lowering.inputs import TILES, as_bytes, as_pairs, byte_buffers, few_pairs, tiles_of
from lacewing.backends.cuda.lowering.launches import Grid, Router
from lacewing.backends.cuda.lowering.products import (
    TENSOR,
    TILE_ROWS,
    Splits,
    is_hopper,
    launch_tiles,
    shared_bytes,
    tile_tokens,
)
from lacewing.backends.cuda.weights.upload import ResidentStack
from lacewing.backends.gpu.run import Run
from lacewing.backends.gpu.stacks import joined
from lacewing.backends.weights import ResidentExperts
from lacewing.errors import UnsupportedModelError
from lacewing.program import ops
from lacewing.program.ops import View

MOST_EXPERTS = 4096  # what the router's kernel has shared memory for
WARPS = 8  # of a block of a product, which has a row each


@RULES.rule(ops.Route)
def route(compiler: Compiler, op: ops.Route) -> None:
    experts, active = op.logits.width, op.ids.width
    if experts > MOST_EXPERTS:
        raise UnsupportedModelError(
            f"the CUDA backend routes to {MOST_EXPERTS} experts at most, not {experts}; use `backend='cpu'`"
        )
    router = Router(op.layer, experts, active, sum(each.words for each in compiler.routers))
    compiler.routers.append(router)
    stride = sum(each.logits.width + each.ids.width for each in compiler.program.ops if isinstance(each, ops.Route))
    numbers = Struct((
        experts, active, op.groups, op.groups_used, op.group_best, int(op.renormalise), float(op.scale), float(op.jitter),
    ))  # fmt: skip
    arguments = [
        compiler.at(op.logits), compiler.at(op.ids), compiler.at(op.weights), compiler.vector(op.bias), compiler.vector(op.scales),
        KEPT, stride, router.first, numbers,
    ]  # fmt: skip
    shared = 4 * (2 * experts + 2 * active + op.groups)
    compiler.launch("route", {"GATING": op.gating}, arguments, lambda run: Grid(1, run.tokens), shared=shared)


@RULES.rule(ops.ExpertLinear)
def expert_linear(compiler: Compiler, op: ops.ExpertLinear) -> None:
    biases, key = op.biases or (None,) * len(op.weights), ("experts", *op.weights)
    if key not in compiler.matrices:
        weights = [compiler.weights[name] for name in op.weights]
        stack = weights[0] if len(weights) == 1 else None if op.transposed else joined(weights)
        if stack is None or len(op.outs) > 2:
            for name, out, bias in zip(op.weights, op.outs, biases, strict=True):
                matrix = compiler.matrix((name,), op.transposed)
                _product(compiler, op, matrix, (out,), _bias(compiler, op, matrix, (name,), (bias,)))
            return
        compiler.matrices[key] = compiler.uploader.matrix([stack], op.transposed)
    matrix = compiler.matrices[key]
    _product(compiler, op, matrix, op.outs, _bias(compiler, op, matrix, op.weights, biases))


@dataclass(frozen=True)
class Chosen:
    """A product with the rows of the chosen experts: `rows` of each of `parts`."""

    op: ops.ExpertLinear
    matrix: Matrix
    outs: Outs
    bias: Pointer
    rows: int
    parts: int
    experts: int


def _product(compiler: Compiler, op: ops.ExpertLinear, matrix: Matrix, outs: Sequence[View], bias: Pointer) -> None:
    active, parts = op.ids.width, len(outs)
    rows, experts = outs[0].width // active, compiler.weights[op.weights[0]].shape[0]
    places = Outs(tuple(compiler.at(out) for out in outs), (rows,) * parts)
    it = Chosen(op, matrix, places, bias, rows, parts, experts)
    single = matrix.quant in kernel("expert_bytes").macros["QUANT"] and shared_bytes(matrix) <= compiler.device.most_shared
    tensor = single and matrix.quant in kernel("gemm_mma").macros["QUANT"] and compiler.device.number >= TENSOR
    few = few_pairs(experts, active) if tensor else 1
    if single:
        _gemv(compiler, it, few)
    if tensor:
        _grouped(compiler, it, few)
    else:
        _plain(compiler, it, 1 if single else 0)


def _plain(compiler: Compiler, it: Chosen, most: int) -> None:
    """In float32, for more than `most` tokens."""
    arguments = [compiler.at(it.op.x), *_places(compiler, it)]
    across, active = blocks(it.rows * it.parts, WARPS), it.op.ids.width

    def grid(run: Run) -> Grid | None:
        return Grid(across, active, run.tokens) if run.tokens > most else None

    compiler.launch("expert_gemv", {"QUANT": it.matrix.quant}, arguments, grid)


def _places(compiler: Compiler, it: Chosen) -> list[Argument]:
    """The arguments from the ids on that both kernels of single tokens have."""
    op, matrix = it.op, it.matrix
    return [
        compiler.at(op.ids), compiler.at_or_none(op.factor), matrix.planes, it.outs, it.bias, it.rows, it.parts,
        matrix.groups, matrix.columns, op.ids.width, op.separate, op.interleaved,
    ]  # fmt: skip


def _gemv(compiler: Compiler, it: Chosen, most: int) -> None:
    """Up to `most` tokens, each by itself."""
    op, matrix, active = it.op, it.matrix, it.op.ids.width
    if matrix.layout.floats:
        codes = byte_buffers(compiler, "bytes of activations")
    else:
        codes = as_bytes(compiler, op.x, matrix.groups * (active if op.separate else 1), False, most)
    across = blocks(it.rows * it.parts, 2 * WARPS)

    def grid(run: Run) -> Grid | None:
        return Grid(across, active, run.tokens) if run.tokens <= most else None

    arguments = [compiler.at(op.x), *codes, *_places(compiler, it)]
    compiler.launch("expert_bytes", {"QUANT": matrix.quant}, arguments, grid, shared=shared_bytes(matrix))


def _grouped(compiler: Compiler, it: Chosen, few: int) -> None:
    """More than `few` tokens, sorted by expert, so that an expert's rows are read once."""
    op, matrix, active = it.op, it.matrix, it.op.ids.width
    splits = Splits.of(compiler)
    all_rows = it.rows * it.parts
    least, most = (tile_tokens(2 * count * active // it.experts) for count in (few + 1, compiler.limits.chunk))
    for tokens in TILES:
        if not least <= tokens <= most or compiler.limits.chunk <= few:
            continue

        def fits(run: Run, tokens: int = tokens) -> bool:
            return run.tokens > few and tokens == tile_tokens(2 * run.tokens * active // it.experts)

        pairs = as_pairs(compiler, op, it.experts, tokens, is_hopper(compiler), fits)

        def grid(run: Run, tokens: int = tokens, fits: Callable[[Run], bool] = fits) -> Grid | None:
            across = tiles_of(run.tokens, active, it.experts, tokens)
            return Grid(across, blocks(all_rows, TILE_ROWS)) if fits(run) else None

        x, numbers = pairs.halves, Struct((pairs.most, active, it.rows, it.parts, int(op.interleaved)))
        arguments = [
            STEP, x.values, x.scales, matrix.planes, it.outs, it.bias, all_rows, matrix.groups, 0, 1.0, 0.0, splits.partial,
            splits.counters, pairs.list, compiler.at_or_none(op.factor), numbers, x.atoms,
        ]  # fmt: skip
        launch_tiles(compiler, matrix.quant, tokens, True, arguments, grid, "expert_tiles")


@RULES.rule(ops.Combine)
def combine(compiler: Compiler, op: ops.Combine) -> None:
    places = [compiler.at(op.x), compiler.at_or_none(op.weights), compiler.at_or_none(op.ids), compiler.at(op.out)]
    compiler.over("combine", {}, [*places, compiler.at_or_none(op.add), op.active, op.out.width], op.out.width)


def _bias(
    compiler: Compiler, op: ops.ExpertLinear, matrix: Matrix, names: tuple[str, ...], biases: Sequence[str | None]
) -> Pointer:
    """float32 (E, rows of all weights); null where no weight has any."""
    shapes = [compiler.weights[name].shape for name in names]
    rows = [shape[2 if op.transposed else 1] for shape in shapes]
    if isinstance(compiler.weights[names[0]], ResidentExperts):  # they may be exchanged: in memory that nobody else reads
        if names not in compiler.held:
            bias = NULL
            if any(biases):
                values = _values(compiler, shapes[0][0], biases, rows)
                bias = compiler.own(values.nbytes, "biases of resident experts")
                compiler.write(bias, values)
            compiler.held[names] = ResidentStack(names, tuple(biases), tuple(rows), matrix, bias, op.transposed)
        return compiler.held[names].bias
    if not any(biases):
        return NULL
    if len(biases) == 1 and biases[0] is not None:
        return compiler.vector(biases[0])
    return compiler.constant(_values(compiler, shapes[0][0], biases, rows))


def _values(compiler: Compiler, experts: int, names: Sequence[str | None], widths: Sequence[int]) -> np.ndarray:
    values = []
    for name, width in zip(names, widths, strict=True):
        weight = compiler.weights[name] if name is not None else None
        part = np.zeros((experts, width), np.float32) if weight is None else weight.quant.dequantise(weight.data)
        values.append(np.asarray(part, np.float32).reshape(experts, width))
    return np.ascontiguousarray(np.concatenate(values, axis=1))
