"""Linear products on matrix units: in tiles of as many tokens as suit a run, and of columns divided where tiles are few."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lacewing.backends.gpu.run import Run
from lacewing.backends.webgpu.device.device import Slice
from lacewing.backends.webgpu.device.variant import Units
from lacewing.backends.webgpu.lowering import forms
from lacewing.backends.webgpu.lowering.compiler import Compiler
from lacewing.backends.webgpu.lowering.dispatches import Grid, Tile
from lacewing.backends.webgpu.weights.matrices import Shard
from lacewing.program.ops import View

# Workgroups that a product may be divided into, with the widest tile and with skinnier ones; 0: never. An H200 has 132 processors;
# more workgroups than these were slower there. docs/webgpu.md has the figures.
SPLIT_GROUPS = (132, 264)
SPLIT_STEPS = 4  # of `Units.depth` columns, that a workgroup has at least
SUM_ROWS, SUM_THREADS = 4, 64  # of a thread, and threads of a workgroup, that add partial sums


@dataclass(frozen=True)
class Split:
    """How the columns of a product are divided: `across` tiles of rows, `steps` of columns, `wanted` workgroups at most."""

    across: int
    steps: int
    wanted: int

    def parts(self, blocks: int) -> int:
        """Workgroups that share the columns of a tile, where tokens make so many tiles; all have some."""
        most = min(self.wanted // (self.across * blocks), self.steps // SPLIT_STEPS)
        return -(-self.steps // -(-self.steps // most)) if most > 1 else 1

    def table(self, blocks: int) -> list[tuple[int, int]]:
        """Up to how many tiles of tokens there are so many parts, more than one; for up to `blocks`."""
        found: list[tuple[int, int]] = []
        for count in range(1, blocks + 1):
            parts = self.parts(count)
            if parts == 1:
                break
            if found and found[-1][1] == parts:
                found.pop()
            found.append((count, parts))
        return found


def shapes(units: Units) -> list[tuple[Units, int]]:
    """Tiles of products, the widest first, with the workgroups that each may have."""
    return [(units, SPLIT_GROUPS[0]), *((each, SPLIT_GROUPS[1]) for each in units.skinnier)]


def split_bytes(units: Units | None) -> int:
    """Of partial sums, at most."""
    return max(4 * each.tokens * each.rows * wanted for each, wanted in shapes(units)) if units is not None else 0


def ranges(units: Units, chunk: int) -> Iterator[tuple[Units, int, int, int]]:
    """Tiles of runs of up to `chunk` tokens: the shape, its workgroups, above and up to how many tokens it is taken."""
    every = shapes(units)
    for (shape, wanted), smaller in zip(every, [*every[1:], None], strict=True):
        least = forms.SKINNY_ABOVE if smaller is None else max(forms.SKINNY_ABOVE, smaller[0].tokens)
        if least < chunk:
            yield shape, wanted, least, chunk
            chunk = least


def divides(units: Units, rows: int, columns: int, chunk: int) -> bool:
    """Whether runs of up to `chunk` tokens have a product with such a matrix whose columns are divided."""
    return any(
        (table := _split(shape, wanted, rows, columns).table(-(-upto // shape.tokens))) and table[-1][0] * shape.tokens > above
        for shape, wanted, above, upto in ranges(units, chunk)
    )


def _split(units: Units, wanted: int, rows: int, columns: int) -> Split:
    return Split(-(-rows // units.rows), -(-columns // units.depth), wanted)


def unit_tiles(compiler: Compiler, x: View, units: Units) -> list[Tile]:
    """The GEMMs of a product of x."""
    halves = compiler.halved(x, forms.SKINNY_ABOVE)
    return [
        Tile("gemm_units", (shape.rows, shape.tokens), (above, upto), {"units": shape, "halves": halves, "wanted": wanted})
        for shape, wanted, above, upto in ranges(units, compiler.limits.chunk)
    ]


def unit_gemm(
    compiler: Compiler, tile: Tile, constants: Mapping[str, Any], shard: Shard, extra: Sequence[Slice],
    count_of: Callable[[Run], int], label: str,
) -> None:  # fmt: skip
    """Dispatches of a tile: with whole columns for runs that have tiles enough, and with parts of them, and their sums.

    Tokens come first in a grid, so that what is read of the weights is shared.
    """
    (tile_rows, tile_tokens), (above, upto) = tile.size, tile.tokens
    constants = dict(constants)
    units, wanted = constants["units"], constants.pop("wanted")
    rows, split = shard.rows, _split(units, wanted, shard.rows, constants["groups"] * 32)
    across = split.across
    table = split.table(-(-upto // tile_tokens))

    def count(run: Run) -> int:
        return count_of(run) if above < count_of(run) <= upto else 0

    def parts(run: Run) -> int:
        return split.parts(-(-count(run) // tile_tokens)) if count(run) else 0

    def whole(run: Run) -> Grid | None:
        return (-(-count(run) // tile_tokens), across, 1) if parts(run) == 1 else None

    def divided(run: Run) -> Grid | None:
        return (-(-count(run) // tile_tokens), across, parts(run)) if parts(run) > 1 else None

    def summed(run: Run) -> Grid | None:
        return (-(-rows // (SUM_ROWS * SUM_THREADS)), count(run), 1) if parts(run) > 1 else None

    if not table or table[-1][0] * tile_tokens < upto:
        compiler.dispatch(tile.kernel, constants, [*shard.planes, *extra], whole, label)
    if table and table[-1][0] * tile_tokens > above:
        sums = compiler.scratch("sums of products", split_bytes(compiler.variant.units))
        more = {**constants, "split": table, "steps": split.steps, "pitch": across * tile_rows // 4}
        compiler.dispatch("gemm_units_split", more, [*shard.planes, sums], divided, label)
        compiler.dispatch("gemm_units_sum", {**more, "threads": SUM_THREADS}, [sums, *extra], summed, label)
