"""x @ matrix.T: which kernel for how many tokens. One token has its activations as bytes; more go through tensor cores in float16.

On cards whose float16 products run at half rate, many tokens are multiplied as bytes, too. Cards and weights that these kernels are
not for have the plain ones, in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lacewing.backends.cuda.arguments import NULL, STEP, Argument, Matrix, Outs, Pointer, Struct, blocks
from lacewing.backends.cuda.kernels import kernel
from lacewing.backends.cuda.lowering.compiler import Compiler
from lacewing.backends.cuda.lowering.inputs import HALVED, TILES, Bytes, as_bytes, as_halves, as_many_bytes, byte_buffers
from lacewing.backends.cuda.lowering.launches import DECODE_TOKENS, Grid
from lacewing.backends.gpu.layouts import GROUP, Layout
from lacewing.backends.gpu.run import Run
from lacewing.program.ops import View

WARPS = 8  # of a block of a plain GEMV, which has a row each
GEMV_TOKENS = 16  # tokens, or rows of logits, up to which a plain product is a GEMV
BATCHES = (1, 4)  # tokens that a warp of it takes together
PLAIN_TILE = 64  # rows and tokens of a block of a plain GEMM
TENSOR = 80  # compute capability from which products go through tensor cores
HOPPER = 90  # with warpgroup products, and no other
TILE_ROWS, STAGES = 128, 3  # of a block of a product on tensor cores
WGMMA_STAGES = {32: 6, 64: 4, 128: 3}  # by tokens, as `gemm_wgmma.cu` has them
SPLIT_GROUPS, PLAIN_SPLIT = 16, 4  # groups of 32 columns that a split has at least: of a product on tensor cores, of a plain one
GROUP_BYTES, EIGHT_BYTES = 44, 32  # of shared memory for activations of a GEMV: bytes of a group, of eight floats
NO_EXPERTS = Struct((0, 1, 1, 1, 0))


@dataclass(frozen=True)
class Product:
    """What a product is of. `rows`: of output rows, to logits."""

    x: View
    matrix: Matrix
    outs: Outs
    bias: Pointer
    rows: bool = False
    scale: float = 1.0
    softcap: float = 0.0

    def count(self, run: Run) -> int:
        return run.outputs if self.rows else run.tokens

    def place(self) -> list[Argument]:
        """The arguments from the matrix's planes on that all kernels have."""
        return [self.matrix.planes, self.outs, self.bias, self.matrix.rows, self.matrix.groups]

    def finish(self) -> list[Argument]:
        return [self.rows, self.scale, self.softcap]


def product(compiler: Compiler, it: Product, fewest: int = 1) -> None:
    """Launches for every number of tokens from `fewest` on."""
    label = "logits" if it.rows else ""
    quant = it.matrix.quant
    tensor = quant in kernel("gemm_mma").macros["QUANT"] and compiler.device.number >= TENSOR
    single = quant in kernel("gemv_bytes").macros["QUANT"] and shared_bytes(it.matrix) <= compiler.device.most_shared
    if single and fewest <= 1:
        _gemv(compiler, it, label)
    least = 1 + (GEMV_TOKENS if quant == "F32" else 1) if single and fewest <= 1 else fewest
    if not tensor:
        _plain(compiler, it, least, label)
    else:
        if least <= DECODE_TOKENS:
            _decode(compiler, it, least, label)
        _prefill(compiler, it, label)


def shared_bytes(matrix: Matrix) -> int:
    """Bytes of a token's activations in shared memory."""
    return matrix.groups * (4 * EIGHT_BYTES if matrix.layout.floats else GROUP_BYTES)


def _gemv(compiler: Compiler, it: Product, label: str) -> None:
    matrix, processors = it.matrix, compiler.device.processors
    floats = matrix.layout.floats
    bytes_ = byte_buffers(compiler, "bytes of activations") if floats else as_bytes(compiler, it.x, matrix.groups, it.rows)
    together = 2 if 2 * blocks(matrix.rows, 2 * WARPS) >= 3 * processors else 1
    whole = blocks(matrix.rows, together * WARPS)
    large = together == 2 and not floats  # with chunks of two rows under way a multiprocessor has room for two blocks
    deep = not large and _is_small(matrix) and matrix.groups >= 96 and not 2 * processors < whole <= 3 * processors
    across, most = min(whole, (2 if large else 4) * processors), GEMV_TOKENS if matrix.quant == "F32" else 1

    def grid(run: Run) -> Grid | None:
        return Grid(across, it.count(run)) if 0 < it.count(run) <= most else None

    compiler.launch(
        "gemv_bytes", {"QUANT": matrix.quant, "ROWS": together, "UNROLL": 4 if deep else 2},
        [STEP, compiler.at(it.x), *bytes_, *it.place(), matrix.columns, *it.finish()],
        grid, label, shared_bytes(matrix),
    )  # fmt: skip


def _is_small(matrix: Matrix) -> bool:
    """Whether there is little of a group to keep in registers."""
    coded = not matrix.layout.floats and len(matrix.layout.planes) < 3
    return coded or matrix.quant in ("F16", "BF16", "Q4_K")


def gated(compiler: Compiler, x: View, matrix: Matrix, out: View, function: str, made: Bytes) -> None:
    """The product of one token with a gate's rows and as many others, and what an activation makes of both."""
    width = out.width
    arguments = [*as_bytes(compiler, x, matrix.groups, False), matrix.planes, compiler.at(out), *made, width, matrix.groups]
    sets = width // GROUP
    grid = Grid(blocks(sets, blocks(sets, 2 * compiler.device.processors)))  # as many sets a block, of blocks that run at a time
    macros = {"QUANT": matrix.quant, "FUNCTION": function}
    compiler.launch("gemv_gated", macros, arguments, lambda run: grid if run.tokens == 1 else None, shared=shared_bytes(matrix))


def can_gate(compiler: Compiler, matrix: Matrix, function: str) -> bool:
    """Whether `gated` is for it."""
    macros = kernel("gemv_gated").macros
    fits = shared_bytes(matrix) <= compiler.device.most_shared
    return matrix.quant in macros["QUANT"] and function in macros["FUNCTION"] and fits


def _decode(compiler: Compiler, it: Product, least: int, label: str) -> None:
    matrix = it.matrix

    def fits(run: Run) -> bool:
        return least <= it.count(run) <= DECODE_TOKENS

    x = as_halves(compiler, it.x, matrix.columns, it.rows, False, least)
    across = min(blocks(matrix.rows, 16), 2 * compiler.device.processors)
    for tiles in (1, 2):

        def grid(run: Run, tiles: int = tiles) -> Grid | None:
            return Grid(across) if fits(run) and blocks(it.count(run), 8) == tiles else None

        arguments = [STEP, x.values, x.scales, *it.place(), *it.finish()]
        compiler.launch("gemm_few", {"QUANT": matrix.quant, "NT": tiles}, arguments, grid, label)


def _prefill(compiler: Compiler, it: Product, label: str) -> None:
    matrix, coded = it.matrix, multiplies_bytes(compiler, it.matrix)

    def fits(run: Run) -> bool:
        return it.count(run) > DECODE_TOKENS

    if coded:
        x = Tokens(*as_many_bytes(compiler, it.x, matrix.groups, it.rows, DECODE_TOKENS + 1), 0)
    else:
        halves = as_halves(compiler, it.x, matrix.columns, it.rows, is_hopper(compiler), 0)
        x = Tokens(halves.values, halves.scales, halves.atoms)
    splits = Splits.of(compiler, coded)
    down = blocks(matrix.rows, TILE_ROWS)
    for tokens in TILES:

        def grid(run: Run, tokens: int = tokens) -> Grid | None:
            count = it.count(run)
            if not fits(run) or tokens != tile_tokens(count):
                return None
            across = blocks(count, tokens)
            return Grid(across, down, splits.count(across * down, matrix.groups))

        arguments = [
            STEP, x.values, x.scales, *it.place(), *it.finish(), splits.partial, splits.counters, NULL, None, NO_EXPERTS, x.order,
        ]  # fmt: skip
        launch_tiles(compiler, matrix, tokens, False, arguments, grid, label)


@dataclass(frozen=True)
class Tokens:
    """What tiles take of activations. `order`: of float16 the atoms; of experts' bytes, whether each pair has a row of its own."""

    values: Pointer
    scales: Pointer
    order: int


def is_hopper(compiler: Compiler) -> bool:
    return compiler.device.number == HOPPER


def multiplies_bytes(compiler: Compiler, matrix: Matrix) -> bool:
    """Whether tiles of this matrix are products of bytes: on cards of HALVED, with codes."""
    return compiler.device.number in HALVED and matrix.quant in kernel("gemm_bytes").macros["QUANT"]


def byte_tile_shared(layout: Layout, tokens: int) -> int:
    """Bytes of shared memory of a block of `gemm_bytes`: codes of weights and of activations, and what both are multiplied with."""
    both = layout.halves and layout.has_min
    row_factors, token_factors = 4 << (layout.halves + layout.has_min), 16 if both else 8
    stages = 2 if both else 3
    return 2 * TILE_ROWS * 128 + stages * tokens * 128 + 8 * TILE_ROWS * (row_factors + token_factors)


def tile_tokens(count: int) -> int:
    """Tokens of a block for so many."""
    return next((each for each in TILES if each >= count), TILES[-1])


def launch_tiles(
    compiler: Compiler,
    matrix: Matrix,
    tokens: int,
    grouped: bool,
    arguments: list[Argument],
    grid: Callable[[Run], Grid | None],
    label: str,
) -> None:
    """The kernel of tiles that this card has."""
    macros: dict[str, Any] = {"QUANT": matrix.quant, "GROUPED": int(grouped)}
    shared = STAGES * 256 * tokens
    if multiplies_bytes(compiler, matrix):
        name, macros["N"], shared = "gemm_bytes", tokens, byte_tile_shared(matrix.layout, tokens)
    elif is_hopper(compiler):
        name, macros["N"], shared = "gemm_wgmma", tokens, WGMMA_STAGES[tokens] * 256 * tokens
    else:
        name, macros["NT"] = "gemm_mma", tokens // 8
    compiler.launch(name, macros, arguments, grid, label, shared)


@dataclass(frozen=True)
class Splits:
    """Where blocks that share a tile leave their sums: matrices of few rows would leave most of a GPU idle."""

    slots: int  # blocks that run at a time
    partial: Pointer
    counters: Pointer

    @staticmethod
    def of(compiler: Compiler, alone: bool = False) -> Splits:
        """`alone`: a multiprocessor has one of the blocks at a time, else two."""
        slots = 2 * compiler.device.processors
        partial, counters = split_sizes(slots)
        return Splits(
            slots // (2 if alone else 1),
            compiler.scratch("sums of splits", partial),
            compiler.zeros("counters of splits", counters),
        )

    def count(self, tiles: int, groups: int, least: int = SPLIT_GROUPS) -> int:
        """Of so many tiles; a split has so many groups of columns at least."""
        return max(1, min(self.slots // tiles, groups // least))


def split_sizes(slots: int) -> tuple[int, int]:
    """Bytes of the sums and counters."""
    return 4 * slots * TILE_ROWS * TILES[-1], 4 * slots


def _plain(compiler: Compiler, it: Product, least: int, label: str) -> None:
    """GEMVs of few tokens, a GEMM of more, in float32."""
    matrix = it.matrix
    arguments = [STEP, compiler.at(it.x), *it.place(), matrix.columns, *it.finish()]
    for batch in BATCHES if least <= GEMV_TOKENS else ():

        def gemv(run: Run, batch: int = batch) -> Grid | None:
            count = it.count(run)
            fits = least <= count <= GEMV_TOKENS and batch == next(
                each for each in (*BATCHES, 0) if each >= min(count, BATCHES[-1])
            )
            return Grid(blocks(matrix.rows, WARPS), blocks(count, batch)) if fits else None

        compiler.launch("gemv", {"QUANT": matrix.quant, "BATCH": batch}, arguments, gemv, label)

    def gemm(run: Run) -> Grid | None:
        count = it.count(run)
        across, down = blocks(matrix.rows, PLAIN_TILE), blocks(count, PLAIN_TILE)
        return Grid(across, down, splits.count(across * down, matrix.groups, PLAIN_SPLIT)) if count > GEMV_TOKENS else None

    splits = Splits.of(compiler)
    compiler.launch("gemm", {"QUANT": matrix.quant}, [*arguments, splits.partial, splits.counters], gemm, label)
