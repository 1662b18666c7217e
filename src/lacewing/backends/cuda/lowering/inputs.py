"""Activations in the forms that fast products take: as bytes for one token, as float16 for tensor cores.

Each form of a view is made once, as long as nothing is written to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lacewing.backends.batch import StepLimits
from lacewing.backends.cuda.arguments import NULL, STEP, Pointer, blocks
from lacewing.backends.cuda.lowering.compiler import Compiler
from lacewing.backends.cuda.lowering.launches import Grid, Waiting
from lacewing.backends.gpu.layouts import GROUP
from lacewing.backends.gpu.run import Run
from lacewing.program import ops
from lacewing.program.ops import View
from lacewing.program.program import Program

TILE = 128  # tokens that a tile of a product has at most
HALF_COLUMNS = 128  # to whole runs of which columns are padded
ONE_FROM_GATED = "bytes of a gated product"


Bytes = tuple[Pointer, Pointer]  # codes, and scales with sums; see `gemv/bytes.cuh`


@dataclass(frozen=True)
class Halves:
    """Rows of float16 and the power of two of each; `atoms`: of eight rows, in a piece of 64 columns."""

    values: Pointer
    scales: Pointer
    atoms: int


def widest(program: Program) -> int:
    """Columns of the widest matrix of a product, padded."""
    columns = [program.weights[name][-1] for op in program.ops for name in _weights(op)]
    return blocks(max(columns, default=0), HALF_COLUMNS) * HALF_COLUMNS


def _weights(op: object) -> tuple[str, ...]:
    return op.weights if isinstance(op, ops.Linear) else (op.weight,) if isinstance(op, ops.Logits) else ()


def half_sizes(program: Program, limits: StepLimits) -> tuple[int, int]:
    """Bytes of the activations as float16, and of their scales."""
    rows = blocks(limits.chunk, TILE) * TILE
    return 2 * rows * widest(program), 4 * rows


def byte_sizes(program: Program) -> tuple[int, int]:
    """Bytes of a token's activations as bytes, and of their scales."""
    return widest(program), widest(program) // GROUP * 8


def input_bytes(program: Program, limits: StepLimits) -> int:
    """What all forms take on the device."""
    return sum(half_sizes(program, limits)) + 2 * sum(byte_sizes(program))


def one_token(run: Run, rows: bool) -> bool:
    """Whether a product is of one token, or one row of logits."""
    return (run.outputs if rows else run.tokens) == 1


def as_bytes(compiler: Compiler, x: View, groups: int, rows: bool) -> Bytes:
    """The bytes of x in runs of one token, made by the norm before it where that is possible."""
    made = byte_buffers(compiler, "bytes of activations")
    if _valid(compiler, ONE_FROM_GATED, x, (x, False)) and not rows:
        return byte_buffers(compiler, ONE_FROM_GATED)
    if _valid(compiler, "bytes", x, (x, rows)):
        return made
    norm = _norm_before(compiler, x) if not rows else None
    if norm is not None:
        elsewhere = norm.grid
        norm.grid = lambda run: None if run.tokens == 1 else elsewhere(run)
        compiler.launch("norm_bytes", {}, [*norm.arguments, *made], lambda run: Grid(1) if run.tokens == 1 else None)
    else:
        arguments = [STEP, compiler.at(x), *made, groups, rows]
        compiler.launch("quantise", {}, arguments, lambda run: Grid(1) if one_token(run, rows) else None)
    compiler.prepared["bytes"] = (x, rows), compiler.index
    return made


def byte_buffers(compiler: Compiler, label: str) -> Bytes:
    """Of one token."""
    codes, scales = byte_sizes(compiler.program)
    return compiler.scratch(label, codes), compiler.scratch(f"scales of {label}", scales)


def _norm_before(compiler: Compiler, x: View) -> Waiting | None:
    """The launch of the norm that has just made x, if `norm_bytes` can do the same."""
    last = compiler.last_launch
    if last is None or last.kernel != "row_norm" or last.arguments[2] != compiler.at(x) or last.arguments[5] != x.width:
        return None
    places = [place for place in last.arguments[:3] if place is not None]
    aligned = all(place.base % 4 == 0 and place.stride % 4 == 0 for place in places)
    return last if aligned and x.width % GROUP == 0 else None


def as_halves(compiler: Compiler, x: View, columns: int, rows: bool, tiled: bool, few: int, fits: Callable[[Run], bool]) -> Halves:
    """The float16 of x in runs for which `fits` holds, of `few` tokens and more where it is not 0.

    Row after row, or `tiled` as warpgroup products take it.
    """
    values, scales = half_sizes(compiler.program, compiler.limits)
    most = blocks(compiler.limits.chunk, TILE) * TILE
    made = Halves(compiler.scratch("activations as float16", values), compiler.scratch("their scales", scales), most // 8)
    key = "halves of few" if few else "halves of many"
    if not _valid(compiler, key, x, (x, rows, columns, few)):
        arguments = [STEP, compiler.at(x), NULL, 0, 1, 1, 0, columns, rows, made.values, made.scales, made.atoms]

        def grid(run: Run) -> Grid | None:
            return Grid(run.outputs if rows else run.tokens) if fits(run) else None

        compiler.launch("half_rows", {"TILED": int(tiled), "LISTED": 0}, arguments, grid)
        compiler.prepared[key] = (x, rows, columns, few), compiler.index
    return made


def _valid(compiler: Compiler, form: str, x: View, what: tuple[object, ...]) -> bool:
    """Whether that form was made of this last, and nothing has written to it since."""
    found = compiler.prepared.get(form)
    if found is None or found[0] != what:
        return False
    return not any(x.overlaps(write) for op in compiler.program.ops[found[1] : compiler.index] for write in op.writes)
