"""Mixtures of experts: the linears of the chosen experts, their sum."""

from __future__ import annotations

from collections.abc import Callable

from lacewing.backends.cuda.arguments import STEP, Argument, Struct, blocks
from lacewing.backends.cuda.lowering.chosen import Chosen, chosen
from lacewing.backends.cuda.lowering.compiler import RULES, Compiler
from lacewing.backends.cuda.lowering.few_experts import gated_experts, sum_after_experts, summed_experts
from lacewing.backends.cuda.lowering.inputs import TILES, as_bytes, as_list, as_many_bytes, as_pairs, byte_buffers, tiles_of
from lacewing.backends.cuda.lowering.launches import Grid
from lacewing.backends.cuda.lowering.products import (
    TILE_ROWS,
    Splits,
    Tokens,
    is_hopper,
    launch_tiles,
    multiplies_bytes,
    shared_bytes,
    tile_tokens,
)
from lacewing.backends.cuda.lowering.rows import activate
from lacewing.backends.gpu.run import Run
from lacewing.program import ops

WARPS = 8  # of a block of a product, which has a row each


@RULES.rule(ops.ExpertLinear)
def expert_linear(compiler: Compiler, op: ops.ExpertLinear) -> None:
    products = chosen(compiler, op)
    after = gated_experts(compiler, products)
    taken_over = after is not None or sum_after_experts(compiler, compiler.index) is not None
    for it in products:
        if it.few and not taken_over:
            _gemv(compiler, it)
        if it.tensor:
            _grouped(compiler, it)
        else:
            _plain(compiler, it)
    if after is not None:
        activate(compiler, after, products[0].few + 1)
        compiler.done.add(compiler.index + 1)


def _plain(compiler: Compiler, it: Chosen) -> None:
    """In float32, for more than few tokens."""
    arguments = [compiler.at(it.op.x), *_places(compiler, it)]
    across, active = blocks(it.rows * it.parts, WARPS), it.op.ids.width

    def grid(run: Run) -> Grid | None:
        return Grid(across, active, run.tokens) if run.tokens > it.few else None

    compiler.launch("expert_gemv", {"QUANT": it.matrix.quant}, arguments, grid)


def _places(compiler: Compiler, it: Chosen) -> list[Argument]:
    """The arguments from the ids on that both kernels of single tokens have."""
    op, matrix = it.op, it.matrix
    return [
        compiler.at(op.ids), compiler.at_or_none(op.factor), matrix.planes, it.outs, it.bias, it.rows, it.parts,
        matrix.groups, matrix.columns, op.ids.width, op.separate, op.interleaved,
    ]  # fmt: skip


def _gemv(compiler: Compiler, it: Chosen) -> None:
    """Few tokens, each by itself."""
    op, matrix, active = it.op, it.matrix, it.op.ids.width
    if matrix.layout.floats:
        codes = byte_buffers(compiler, "bytes of activations")
    else:
        codes = as_bytes(compiler, op.x, matrix.groups * (active if op.separate else 1), False, it.few)
    across = blocks(it.rows * it.parts, 2 * WARPS)

    def grid(run: Run) -> Grid | None:
        return Grid(across, active, run.tokens) if run.tokens <= it.few else None

    arguments = [compiler.at(op.x), *codes, *_places(compiler, it)]
    compiler.launch("expert_bytes", {"QUANT": matrix.quant}, arguments, grid, shared=shared_bytes(matrix))


def _grouped(compiler: Compiler, it: Chosen) -> None:
    """More than few tokens, sorted by expert, so that an expert's rows are read once."""
    op, matrix, active, few = it.op, it.matrix, it.op.ids.width, it.few
    splits, coded = Splits.of(compiler), multiplies_bytes(compiler, matrix)
    all_rows = it.rows * it.parts
    least, largest = (tile_tokens(2 * count * active // it.experts) for count in (few + 1, compiler.limits.chunk))
    for tokens in TILES:
        if not least <= tokens <= largest or compiler.limits.chunk <= few:
            continue

        def fits(run: Run, tokens: int = tokens) -> bool:
            return run.tokens > few and tokens == tile_tokens(2 * run.tokens * active // it.experts)

        list_, most = as_list(compiler, op, it.experts, tokens, fits)
        if coded:
            x = Tokens(*as_many_bytes(compiler, op.x, matrix.groups * (active if op.separate else 1), False, few + 1), op.separate)
        else:
            halves = as_pairs(compiler, op, it.experts, tokens, is_hopper(compiler), fits)
            x = Tokens(halves.values, halves.scales, halves.atoms)

        def grid(run: Run, tokens: int = tokens, fits: Callable[[Run], bool] = fits) -> Grid | None:
            across = tiles_of(run.tokens, active, it.experts, tokens)
            return Grid(across, blocks(all_rows, TILE_ROWS)) if fits(run) else None

        numbers = Struct((most, active, it.rows, it.parts, int(op.interleaved)))
        arguments = [
            STEP, x.values, x.scales, matrix.planes, it.outs, it.bias, all_rows, matrix.groups, 0, 1.0, 0.0, splits.partial,
            splits.counters, list_, compiler.at_or_none(op.factor), numbers, x.order,
        ]  # fmt: skip
        launch_tiles(compiler, matrix, tokens, True, arguments, grid, "expert_tiles")


@RULES.rule(ops.Combine)
def combine(compiler: Compiler, op: ops.Combine) -> None:
    places = [compiler.at(op.x), compiler.at_or_none(op.weights), compiler.at_or_none(op.ids), compiler.at(op.out)]
    arguments = [*places, compiler.at_or_none(op.add), op.active, op.out.width]
    compiler.over("combine", {}, arguments, op.out.width, 1 + summed_experts(compiler, op))
