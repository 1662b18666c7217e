"""Products of many tokens with the experts that they chose: tiles of rows of an expert and of the pairs in its part of a list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lacewing.backends.gpu.arena import Place
from lacewing.backends.gpu.run import Run
from lacewing.backends.webgpu.device.device import Slice
from lacewing.backends.webgpu.device.variant import Units
from lacewing.backends.webgpu.lowering.compiler import Compiler
from lacewing.backends.webgpu.lowering.dispatches import Grid, Tile
from lacewing.backends.webgpu.lowering.forms import gemv_tokens, units_for
from lacewing.backends.webgpu.weights.matrices import Matrix, Shard
from lacewing.program import ops
from lacewing.program.ops import View

TILES = {"dot": (256, 32), "float": (64, 64)}  # rows and pairs of a workgroup for many tokens
LIST_THREADS = 256  # of the one workgroup that sorts pairs
ROOM = 2  # times the average of pairs an expert that a tile of matrix units has, since experts have more and fewer


@dataclass(frozen=True)
class Product:
    """A matrix of stacked experts and what becomes of its rows: `parts` outs of `rows` each."""

    op: ops.ExpertLinear
    matrix: Matrix
    outs: tuple[View, ...]
    bias: Slice | None
    dotted: bool

    @property
    def active(self) -> int:
        return self.op.ids.width

    @property
    def rows(self) -> int:
        return self.outs[0].width // self.active

    @property
    def parts(self) -> int:
        return len(self.outs)

    @property
    def gemv_tokens(self) -> int:
        """Up to so many tokens read their experts' rows by themselves."""
        return gemv_tokens(self.experts(self.matrix), self.active)

    def experts(self, shard: Shard | Matrix) -> int:
        return shard.rows // (self.rows * self.parts)

    def bindings(self, shard: Shard) -> list[Slice]:
        return [*shard.planes, *([self.bias] if self.bias is not None else [])]


def inputs(compiler: Compiler, product: Product) -> dict[str, Any]:
    """The constants of all kernels of a product."""
    op, matrix = product.op, product.matrix
    codes = compiler.limits.chunk if _units(compiler, product) is None else product.gemv_tokens
    return {
        "layout": matrix.layout, "groups": matrix.groups, "columns": matrix.columns, "dotted": product.dotted,
        "x": compiler.quantised(op.x, codes) if product.dotted else compiler.at(op.x), "part": matrix.columns if op.separate else 0,
        "ids": compiler.at(op.ids), "active": product.active, "rows": product.rows, "parts": product.parts,
        "interleaved": op.interleaved, "biased": product.bias is not None,
        "factor": compiler.at(op.factor) if op.factor is not None else None,
        "outs": [compiler.at(out) for out in product.outs],
    }  # fmt: skip


def gemm(compiler: Compiler, product: Product) -> None:
    """Dispatches of runs of many tokens."""
    experts, every = product.experts(product.matrix), inputs(compiler, product)
    for kernel, (tile_rows, tile_tokens), tokens, own in _tiles(compiler, product):
        lists, tiles = (
            _lists(compiler, product, tile_tokens, tokens),
            _most_tiles(compiler.limits.chunk * product.active, experts, tile_tokens),
        )
        fours = not product.op.interleaved and not any(
            number % 4 for number in (product.rows, *(out.base for out in every["outs"]))
        )
        constants = {
            **every,
            **own,
            "fours": fours,
            "lists": lists,
            "tiles": tiles,
            "tile_rows": tile_rows,
            "tile_tokens": tile_tokens,
        }
        across = -(-product.rows * product.parts // tile_rows)

        def grid(run: Run, across: int = across, tile: int = tile_tokens) -> Grid:
            return across, _most_tiles(run.tokens * product.active, experts, tile), 1

        for shard in product.matrix.shards:
            constants |= {"first_expert": shard.first // (product.rows * product.parts), "experts": product.experts(shard)}
            compiler.dispatch(kernel, constants, product.bindings(shard), between(tokens, grid))


def _tiles(compiler: Compiler, product: Product) -> list[Tile]:
    """The kernels of runs of many tokens, and of how many tokens each is."""
    units, few, endless = _units(compiler, product), product.gemv_tokens, compiler.limits.chunk
    if units is None:
        kind = "dot" if product.dotted else "float"
        return [Tile(f"expert_gemm_{kind}", TILES[kind], (few, endless), {})]
    halves, made = compiler.halved(product.op.x, few), []
    while few < endless:
        narrower = units.narrower
        least = few if narrower is None else max(few, narrower.tokens * product.experts(product.matrix) // (ROOM * product.active))
        if least < endless:
            size = units.rows, units.tokens
            made.append(Tile("expert_gemm_units", size, (least, endless), {"units": units, "halves": halves}))
            endless = least
        units = narrower or units
    return made


def _units(compiler: Compiler, product: Product) -> Units | None:
    part = product.matrix.columns if product.op.separate else 0
    matrix = product.matrix
    return units_for(compiler, matrix.layout.quant, product.op.weights, product.rows * product.parts, product.gemv_tokens, part)


def _most_tiles(pairs: int, experts: int, tile: int) -> int:
    """The most tiles that so many pairs can make: at each expert one is not full."""
    return pairs // tile + min(experts, pairs)


def _lists(compiler: Compiler, product: Product, tile: int, tokens: tuple[int, int]) -> Place:
    """The pairs of a run of so many tokens sorted by expert, once a router; see `expert_lists.wgsl`."""
    ids, active, experts, chunk = product.op.ids, product.active, product.experts(product.matrix), compiler.limits.chunk
    key = (ids, experts, tile, tokens)
    tiles = _most_tiles(chunk * active, experts, tile)
    if key not in compiler.sorted_pairs:
        compiler.sorted_pairs[key] = compiler.arena.place(-(-(1 + 3 * tiles + chunk * active) // chunk))
    if key not in compiler.fresh:
        constants = {
            "ids": compiler.at(ids), "active": active, "experts": experts, "tile": tile, "tiles": tiles,
            "lists": compiler.sorted_pairs[key], "threads": LIST_THREADS,
        }  # fmt: skip
        compiler.dispatch("expert_lists", constants, [], between(tokens, lambda run: (1, 1, 1)))
        compiler.fresh.add(key)
    return compiler.sorted_pairs[key]


Grids = Callable[[Run], Grid | None]


def between(tokens: tuple[int, int], grid: Grids) -> Grids:
    """For runs of more tokens than the first, up to the second."""
    above, upto = tokens
    return lambda run: grid(run) if above < run.tokens <= upto else None


def up_to(most: int, grid: Grids) -> Grids:
    return lambda run: grid(run) if run.tokens <= most else None


def above(most: int, grid: Grids) -> Grids:
    return lambda run: grid(run) if run.tokens > most else None
