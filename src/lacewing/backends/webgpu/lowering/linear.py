"""Products with weights: linear ops and the logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lacewing.backends.gpu.arena import Place
from lacewing.backends.gpu.fusions import unused
from lacewing.backends.gpu.layouts import GROUP, RUN
from lacewing.backends.gpu.run import Run
from lacewing.backends.webgpu.device.device import Slice
from lacewing.backends.webgpu.device.variant import Units
from lacewing.backends.webgpu.lowering import forms
from lacewing.backends.webgpu.lowering.compiler import RULES, Compiler
from lacewing.backends.webgpu.lowering.dispatches import Grid, Tile, folded
from lacewing.backends.webgpu.lowering.forms import GEMV_TOKENS, is_narrow, units_for
from lacewing.backends.webgpu.lowering.rows import gated
from lacewing.backends.webgpu.lowering.unit_tiles import unit_gemm, unit_tiles
from lacewing.backends.webgpu.weights.matrices import Matrix, Shard
from lacewing.program import ops
from lacewing.program.ops import View

THREADS = 128  # of a workgroup of a matrix-vector product in float32
GATED_THREADS = 512  # of a workgroup of a gated product, which makes 32 values
Batches = tuple[tuple[int, int], ...]
# Tokens that a workgroup of a GEMV takes together, with how many rows a team, by trial on an H200: of bytes where a team is narrow,
# where it is wide, and there of quants with two scales and minimums a group, which take more registers; and of plain floats in many
# rows.
NARROW_BATCHES: Batches = ((1, 1), (4, 2), (8, 2))
WIDE_BATCHES: Batches = ((1, 1), (4, 2), (8, 4), (16, 4))
HALVES_BATCHES: Batches = ((1, 1), (4, 2), (8, 4))
PLAIN_BATCHES: Batches = ((1, 1), (4, 1), (8, 1))
ALONE: Batches = ((1, 1),)
WIDE = 32  # threads of a team
DOT_TOKENS, PLAIN_TOKENS = 64, 32  # up to which a product of bytes, or of plain floats, is a GEMV
PLAIN_ROWS = 4096  # from which tokens share what is read of plain floats; few rows would leave most of a GPU idle
TILES = {"dot": (128, 64), "float": (64, 64), "float_narrow": (16, 16)}  # rows and tokens of a workgroup of the others


@dataclass(frozen=True)
class Out:
    """Rows `start` to `end` of a matrix go to columns of `place`."""

    start: int
    end: int
    place: Place


@RULES.rule(ops.Linear)
def linear(compiler: Compiler, op: ops.Linear) -> None:
    after = _gated_after(compiler, op)
    if after is not None:
        matrix = compiler.matrix(op.weights)
        if len(matrix.shards) == 1 and not matrix.layout.floats:
            _gated(compiler, op, matrix, after)
            return
    biases = op.biases or (None,) * len(op.weights)
    for members in _joined(compiler, op):
        outs, first = [], 0
        for index in members:
            rows = op.outs[index].width
            outs.append(Out(first, first + rows, compiler.at(op.outs[index])))
            first += rows
        bias = _joined_bias(compiler, [biases[index] for index in members], [op.outs[index].width for index in members])
        product(
            compiler,
            op.x,
            [op.weights[index] for index in members],
            {"target": "arena", "outs": outs, "biased": bias is not None},
            [bias] if bias is not None else [],
        )
    for out in op.outs:
        compiler.written(out)


def _gated_after(compiler: Compiler, op: ops.Linear) -> ops.GatedActivation | None:
    """The activation that is all that becomes of a linear op with a gate, where one kernel can do both."""
    program, index = compiler.program.ops, compiler.index
    after = program[index + 1] if index + 1 < len(program) else None
    if not isinstance(after, ops.GatedActivation) or op.outs != (after.gate, after.up) or any(op.biases):
        return None
    if after.gate.width != after.up.width:
        return None
    whole = after.out.start % GROUP == 0 and after.out.width % GROUP == 0 and not after.out.overlaps(op.x)
    gone = all(view == after.out or unused(program, index + 2, view) for view in op.outs)
    quants = {compiler.weights[name].quant.name for name in op.weights}
    together = len(quants) == 1 and len(_joined(compiler, op)) == 1
    return after if whole and gone and together and compiler.variant.dot else None


def _gated(compiler: Compiler, op: ops.Linear, matrix: Matrix, after: ops.GatedActivation) -> None:
    """The GEMV in one kernel, the GEMM in two."""
    width = after.out.width
    outs = [Out(0, width, compiler.at(op.outs[0])), Out(width, 2 * width, compiler.at(op.outs[1]))]
    product(compiler, op.x, op.weights, {"target": "arena", "outs": outs, "biased": False}, [], fewest=1)
    threads = min(GATED_THREADS, compiler.device.most_threads, GROUP * compiler.variant.lanes)
    constants = {
        "layout": matrix.layout, "groups": matrix.groups, "width": width, "threads": threads,
        "team_outs": 1,
        "x": compiler.quantised(op.x, 1), "out": compiler.at(after.out), "q8": compiler.arena.quantised(after.out),
        "activation": after.activation,
    }  # fmt: skip
    across, deep = folded(width // GROUP)
    compiler.dispatch(
        "gemv_gated",
        constants,
        matrix.shards[0].planes,
        lambda run: (across, 1, deep) if run.tokens == 1 else None,
    )
    for out in op.outs:
        compiler.written(out)
    gated(compiler, after, 1)
    compiler.done.add(compiler.index + 1)


def _joined(compiler: Compiler, op: ops.Linear) -> list[list[int]]:
    """The indices of the op's weights, those together that can be one matrix: of one quant, and made of whole runs."""
    joined: dict[object, list[int]] = {}
    for index, name in enumerate(op.weights):
        weight = compiler.weights[name]
        whole = weight.shape[0] * -(-weight.shape[1] // GROUP) % RUN == 0
        joined.setdefault(weight.quant.name if whole else index, []).append(index)
    return list(joined.values())


def _joined_bias(compiler: Compiler, names: Sequence[str | None], widths: Sequence[int]) -> Slice | None:
    if not any(names):
        return None
    parts = []
    for name, width in zip(names, widths, strict=True):
        weight = compiler.weights[name] if name else None
        parts.append(np.zeros(width, np.float32) if weight is None else weight.quant.dequantise(weight.data).reshape(-1))
    return compiler.constant(np.concatenate(parts))


def product(
    compiler: Compiler, x: View, weights: Sequence[str], target: dict[str, object], extra: Sequence[Slice], rows: bool = False,
    fewest: int = 0,
) -> None:  # fmt: skip
    """Dispatches of x @ weights.T, GEMVs and a GEMM a shard, for more than `fewest` tokens. `rows`: of output rows."""
    matrix = compiler.matrix(weights)
    quant, narrow = matrix.layout.quant, is_narrow(matrix.layout.quant, matrix.rows)
    units = None if narrow else units_for(compiler, quant, weights, matrix.rows, forms.SKINNY_ABOVE)
    dotted = compiler.variant.dot and not matrix.layout.floats
    kind = "dot" if dotted else "float_narrow" if narrow else "float"
    codes = compiler.limits.chunk if rows or units is None else forms.SKINNY_ABOVE  # few rows may be of many tokens
    common: dict[str, Any] = {
        "layout": matrix.layout, "groups": matrix.groups, "columns": matrix.columns,
        "half": compiler.variant.half and quant not in ("F32", "BF16"),
        "x": compiler.quantised(x, codes) if dotted else compiler.at(x), "by_rows": rows, **target,
    }  # fmt: skip
    label = "logits" if rows else ""
    gemv, batches, most = _gemv(matrix, compiler.variant.lanes, dotted, not dotted and compiler.at(x).base % 4 == 0)
    tiles = _tiles(compiler, x, units, kind, most)
    most = min(most, *(tile.tokens[0] for tile in tiles))  # skinny tiles take what GEMVs would

    def count_of(run: Run) -> int:
        return run.outputs if rows else run.tokens

    def tiled(run: Run) -> int:  # nothing makes float16 of few tokens, whose rows of logits may be more: some are wanted twice
        return count_of(run) if units is None or run.tokens > forms.SKINNY_ABOVE else 0

    for shard in matrix.shards:
        constants = {**common, "first_row": shard.first, "rows": shard.rows}
        bindings = [*shard.planes, *extra]
        threads, teams = _teams(compiler, shard.rows, matrix.groups) if dotted else (THREADS, 1)
        if fewest:  # as the kernel does that takes fewer
            threads, teams = THREADS, 1
        for batch, each in batches:
            if batch <= fewest or batch > _batch_of(batches, most):
                continue
            more = {"threads": threads, "row_teams": teams, "batch": batch, "each": each}
            across = -(-shard.rows * teams * compiler.variant.lanes // (threads * each))
            name = "gemv_batch" if dotted and batch > 1 else gemv

            def gemv_grid(run: Run, batch: int = batch, across: int = across) -> Grid | None:
                count = count_of(run)
                if count == 0 or tiled(run) > most or batch != _batch_of(batches, min(count, most)):
                    return None
                blocks, one_axis = -(-count // batch), dotted and batch > 1
                wide, deep = folded(across * blocks if one_axis else across)
                return wide, 1 if one_axis else blocks, deep

            compiler.dispatch(name, {**constants, **more}, bindings, gemv_grid, label)
        for tile in tiles:
            name, (tile_rows, tile_tokens), _, own = tile
            sized = {**constants, **own, "fours": _in_fours(shard, target), "tile_rows": tile_rows, "tile_tokens": tile_tokens}
            if name == "gemm_units":
                unit_gemm(compiler, tile, sized, shard, extra, tiled, label)
            else:
                compiler.dispatch(name, sized, bindings, _gemm_grid(tile, shard.rows, tiled), label)


def _gemm_grid(tile: Tile, rows: int, count_of: Callable[[Run], int]) -> Callable[[Run], Grid | None]:
    _, (tile_rows, tile_tokens), (above, upto), _ = tile
    across, deep = folded(-(-rows // tile_rows))

    def grid(run: Run) -> Grid | None:
        count = count_of(run)
        return (across, -(-count // tile_tokens), deep) if above < count <= upto else None

    return grid


def _in_fours(shard: Shard, target: Mapping[str, Any]) -> bool:
    """Whether four rows of a product, the first a multiple of four, are four words in one place."""
    ends = [number for out in target.get("outs", ()) for number in (out.start, out.end, out.place.base)]
    return target["target"] == "arena" and not any(number % 4 for number in (shard.first, shard.rows, *ends))


def _tiles(compiler: Compiler, x: View, units: Units | None, kind: str, most: int) -> list[Tile]:
    """The GEMMs of a product whose GEMVs take up to `most` tokens, which are at least `forms.SKINNY_ABOVE`."""
    if units is not None:
        return unit_tiles(compiler, x, units)
    return [Tile(f"gemm_{kind}", TILES[kind], (most, compiler.limits.chunk), {})]


def _gemv(matrix: Matrix, lanes: int, dotted: bool, aligned: bool) -> tuple[str, Batches, int]:
    """The kernel of a product for few tokens, how many it takes together, and up to how many."""
    if dotted:
        wide = HALVES_BATCHES if matrix.layout.halves and matrix.layout.has_min else WIDE_BATCHES
        return "gemv_dot", wide if lanes >= WIDE else NARROW_BATCHES, DOT_TOKENS
    if matrix.layout.floats and aligned:
        return "gemv_plain", PLAIN_BATCHES if matrix.rows >= PLAIN_ROWS else ALONE, PLAIN_TOKENS
    return "gemv_float", ALONE, GEMV_TOKENS


def _batch_of(batches: Batches, count: int) -> int:
    """Of how many tokens the workgroups of a GEMV of so many are."""
    return next((batch for batch, _ in batches if batch >= count), batches[-1][0])


def _teams(compiler: Compiler, rows: int, groups: int) -> tuple[int, int]:
    """Threads of a workgroup, and teams of them that share a row: chosen by trial on an H200, see docs/webgpu.md.

    Rows of few groups leave nothing to share; few long rows would leave most of a GPU idle.
    """
    lanes = compiler.variant.lanes
    if rows <= 2048 and groups >= 8 * lanes and compiler.device.most_threads >= 512:
        return 512, 4
    return 128, 2 if groups >= 2 * lanes else 1


@RULES.rule(ops.Logits)
def logits(compiler: Compiler, op: ops.Logits) -> None:
    target = {
        "target": "logits", "biased": op.bias is not None, "scale": op.scale, "softcap": op.softcap,
        "vocabulary": compiler.program.vocab_size,
    }  # fmt: skip
    bias = [compiler.vector(op.bias)] if op.bias is not None else []
    product(compiler, op.x, (op.weight,), target, [*bias, compiler.logits], rows=True)
