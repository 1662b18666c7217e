"""Activations in the forms that fast products take: as bytes for one token, as float16 for tensor cores.

Each form of a view is made once, as long as nothing is written to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lacewing.backends.batch import StepLimits
from lacewing.backends.cuda.arguments import NULL, STEP, Joined, Pointer, Struct, blocks
from lacewing.backends.cuda.lowering.compiler import Compiler
from lacewing.backends.cuda.lowering.launches import DECODE_TOKENS, Forms, Grid, fours
from lacewing.backends.gpu.layouts import GROUP
from lacewing.backends.gpu.run import Run
from lacewing.program import ops
from lacewing.program.ops import View
from lacewing.program.program import Program

TILES = (32, 64, 128)  # tokens of a tile of a product
HALF_COLUMNS = 128  # to whole runs of which columns are padded
FEW_HALVES, MANY_HALVES = "halves of few", "halves of many"
ONE_FROM_GATED, ONE_FROM_ATTENTION = "bytes of a gated product", "bytes of attention"  # of runs of one token
FROM_EXPERTS = "bytes of gated experts"
MANY_BYTES = "bytes of many"
HALVED = (
    86,
    89,
    120,
)  # compute capabilities at whose cards float16 products with float32 sums run at a half or a quarter of int8's rate


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
    return _padded(max(columns, default=0))


def _padded(columns: int) -> int:
    return blocks(columns, HALF_COLUMNS) * HALF_COLUMNS


def _weights(op: object) -> tuple[str, ...]:
    return op.weights if isinstance(op, ops.Linear) else (op.weight,) if isinstance(op, ops.Logits) else ()


def half_sizes(program: Program, limits: StepLimits) -> tuple[int, int]:
    """Bytes of the activations as float16, and of their scales."""
    rows = blocks(limits.chunk, TILES[-1]) * TILES[-1]
    return 2 * rows * widest(program), 4 * rows


def mixtures(program: Program) -> list[tuple[int, int, int]]:
    """Experts, active ones and columns of the products of experts."""
    found = [(program.weights[op.weights[0]][0], op) for op in program.ops if isinstance(op, ops.ExpertLinear)]
    return [(experts, op.ids.width, op.x.width // (op.ids.width if op.separate else 1)) for experts, op in found]


def few_pairs(experts: int, active: int) -> int:
    """Tokens up to which hardly two of them share an expert."""
    return max(1, (experts - 1) // active)


def few_routed(experts: int, active: int) -> int:
    """Tokens up to which a router's product and its choice are one kernel."""
    return min(DECODE_TOKENS, few_pairs(experts, active))


def _routers(program: Program) -> list[tuple[int, int, int]]:
    """Experts, active ones and columns of the products of routers."""
    pairs = zip(program.ops, program.ops[1:], strict=False)
    return [
        (op.outs[0].width, after.ids.width, op.x.width)
        for op, after in pairs
        if isinstance(op, ops.Linear) and isinstance(after, ops.Route)
    ]


def byte_sizes(program: Program) -> tuple[int, int]:
    """Bytes of activations as bytes, and of their scales: of a token, or of as many as go to a router or to experts one by one."""
    sizes = [widest(program), *(_padded(op.out.width) for op in program.ops if isinstance(op, ops.GatedActivation))]
    sizes += [*(few_routed(*of) * _padded(columns) for *of, columns in _routers(program))]
    sizes += [few_pairs(experts, active) * active * _padded(columns) for experts, active, columns in mixtures(program)]
    return max(sizes), max(sizes) // GROUP * 8


def many_byte_sizes(program: Program, limits: StepLimits) -> tuple[int, int]:
    """Bytes of the activations of many tokens as bytes, and of their scales."""
    columns = max(widest(program), *(_padded(op.x.width) for op in program.ops if isinstance(op, ops.ExpertLinear)), 0)
    return limits.chunk * columns, limits.chunk * columns // GROUP * 8


def input_bytes(program: Program, limits: StepLimits, halved: bool = False) -> int:
    """What all forms take on the device, `halved` on one of HALVED."""
    pairs = sum(pair_sizes(program, limits)) if mixtures(program) else 0
    many = sum(many_byte_sizes(program, limits)) if halved else 0
    return sum(half_sizes(program, limits)) + (4 if pairs else 3) * sum(byte_sizes(program)) + pairs + many


def tiles_of(tokens: int, active: int, experts: int, tile: int) -> int:
    """Tiles of pairs of a token and an expert at most."""
    return min(tokens * active, tokens * active // tile + experts)


def pair_sizes(program: Program, limits: StepLimits) -> tuple[int, int, int]:
    """Bytes of the activations of all pairs as float16 in tiles, of their scales, and of the list of the tiles."""
    values = scales = words = 0
    for experts, active, columns in mixtures(program):
        rows = pair_rows(limits.chunk, active, experts)
        values, scales = max(values, 2 * rows * _padded(columns)), max(scales, 4 * rows)
        words = max(words, 1 + 3 * tiles_of(limits.chunk, active, experts, TILES[0]) + limits.chunk * active)
    return values, scales, 4 * words


def pair_rows(chunk: int, active: int, experts: int) -> int:
    """Rows of all tiles, whatever their size."""
    return max(tile * tiles_of(chunk, active, experts, tile) for tile in TILES)


def as_bytes(compiler: Compiler, x: View, groups: int, rows: bool, most: int = 1) -> Bytes:
    """The bytes of x in runs of up to `most` tokens, made by the kernel that makes x where that is possible."""
    made = byte_buffers(compiler, "bytes of activations")
    for form in (ONE_FROM_GATED, ONE_FROM_ATTENTION):
        if most == 1 and not rows and _valid(compiler, form, x, (x, False)):
            return byte_buffers(compiler, form)
    if _valid(compiler, FROM_EXPERTS, x, (x, most)) and not rows:
        return byte_buffers(compiler, FROM_EXPERTS)
    for count in {most, max(most, compiler.most_bytes)}:
        if _valid(compiler, "bytes", x, (x, rows, count)):
            _use(compiler, "bytes")
            return made

    def grid(run: Run) -> Grid | None:
        count = run.outputs if rows else run.tokens
        return Grid(1, count) if 0 < count <= most else None

    forms = _forms_of(compiler, x, ("bytes",), 1) if not rows and x.width == groups * GROUP else None
    if forms is not None and forms.prompts:
        forms.codes, forms.byte_scales = made
        forms.bytes_most = max(forms.bytes_most, most)
    else:
        compiler.launch("quantise", {}, [STEP, compiler.at(x), *made, groups, rows], grid, _label(rows))
    compiler.prepared["bytes"], compiler.most_bytes = ((x, rows, most), compiler.index), most
    return made


def as_many_bytes(compiler: Compiler, x: View, groups: int, rows: bool, first: int) -> Bytes:
    """The bytes of x in runs of `first` tokens and more, made by the kernel that makes x where that is possible."""
    codes, scales = many_byte_sizes(compiler.program, compiler.limits)
    made = compiler.scratch(MANY_BYTES, codes), compiler.scratch(f"scales of {MANY_BYTES}", scales)
    for fewer in range(1, first + 1):
        if _valid(compiler, MANY_BYTES, x, (x, rows, fewer)):
            _use(compiler, MANY_BYTES)
            return made

    def grid(run: Run) -> Grid | None:
        count = run.outputs if rows else run.tokens
        return Grid(1, count) if count >= first else None

    forms = _forms_of(compiler, x, (MANY_BYTES,), first) if not rows and x.width == groups * GROUP else None
    if forms is not None and forms.prompts:
        forms.many_codes, forms.many_byte_scales = made
        forms.bytes_first = min(forms.bytes_first or first, first)
    else:
        compiler.launch("quantise", {}, [STEP, compiler.at(x), *made, groups, rows], grid, _label(rows))
    compiler.prepared[MANY_BYTES] = (x, rows, first), compiler.index
    return made


def byte_buffers(compiler: Compiler, label: str) -> Bytes:
    """As `byte_sizes` says."""
    codes, scales = byte_sizes(compiler.program)
    return compiler.scratch(label, codes), compiler.scratch(f"scales of {label}", scales)


def _forms_of(compiler: Compiler, x: View, kept_in: Sequence[str], fewest: int) -> Forms | None:
    """What the kernel that made x can be asked for in runs of `fewest` tokens and more: if nothing was written to x since, nor to
    where the forms `kept_in` are."""
    maker = compiler.maker(x)
    if maker is None or maker.forms is None or maker.forms.fewest > fewest:
        return None
    since = compiler.program.ops[maker.op + 1 : compiler.index]
    later = max((compiler.prepared[form][1] for form in kept_in if form in compiler.prepared), default=-1)
    return None if later > maker.op or any(x.overlaps(write) for op in since for write in op.writes) else maker.forms


def _use(compiler: Compiler, form: str) -> None:
    """It is read here: no kernel before may put something else in its place."""
    compiler.prepared[form] = compiler.prepared[form][0], compiler.index


def _for_fewer(compiler: Compiler, key: str, x: View, what: tuple[View, bool, int, int]) -> bool:
    """Whether the kernel that made x makes its float16 for some tokens already, and now for fewer as well."""
    before, maker = compiler.prepared.get(key), compiler.maker(x)
    if before is None or maker is None or maker.forms is None or not _valid(compiler, key, x, (*what[:3], before[0][-1])):
        return False
    if not maker.forms.prompts or not maker.op < before[1] or not maker.forms.fewest <= what[3] < maker.forms.few_first:
        return False
    maker.forms.few_first = what[3]
    compiler.prepared[key] = what, compiler.index
    return True


def as_halves(compiler: Compiler, x: View, columns: int, rows: bool, tiled: bool, few: int) -> Halves:
    """The float16 of x in runs of `few` to DECODE_TOKENS tokens, or if it is 0 of more: row after row, or `tiled` as warpgroup
    products take it. The kernel that makes x makes it where that is possible."""
    values, scales = half_sizes(compiler.program, compiler.limits)
    most = blocks(compiler.limits.chunk, TILES[-1]) * TILES[-1]
    made = Halves(compiler.scratch("activations as float16", values), compiler.scratch("their scales", scales), most // 8)
    key = FEW_HALVES if few else MANY_HALVES
    what = (x, rows, columns, few)
    if _valid(compiler, key, x, what) or _for_fewer(compiler, key, x, what):
        _use(compiler, key)
        return made
    whole = not rows and x.width == columns and columns % HALF_COLUMNS == 0
    forms = _forms_of(compiler, x, (key,), few or DECODE_TOKENS + 1) if whole else None
    if forms is not None:
        forms.halves, forms.half_scales, forms.atoms = made.values, made.scales, made.atoms
        forms.few_first, forms.many = (few, forms.many) if few else (forms.few_first, 2 if tiled else 1)
    if forms is None or not forms.prompts:
        form = Joined((made.values, made.scales, Struct((made.atoms, 0))))
        arguments = [STEP, compiler.at(x), NULL, 0, 1, 1, 0, columns, rows, form]

        def grid(run: Run) -> Grid | None:
            count = run.outputs if rows else run.tokens
            fits = few <= count <= DECODE_TOKENS if few else count > DECODE_TOKENS
            return Grid(count) if fits and (forms is None or run.prefill) else None

        macros = {"TILED": int(tiled), "LISTED": 0, "EACH": fours(columns)}
        compiler.launch("half_rows", macros, arguments, grid, _label(rows))
    if rows:  # many tokens may have few outputs, whose rows take the place of theirs
        compiler.prepared.pop(MANY_HALVES if few else FEW_HALVES, None)
    compiler.prepared[key] = what, compiler.index
    return made


def as_list(compiler: Compiler, op: ops.ExpertLinear, experts: int, tile: int, fits: Callable[[Run], bool]) -> tuple[Pointer, int]:
    """Where `expert_lists` leaves the pairs of a token and an active expert in tiles of one expert, and how many tiles there are at
    most; in runs for which `fits` holds."""
    active = op.ids.width
    list_ = compiler.scratch("pairs by experts", pair_sizes(compiler.program, compiler.limits)[2])
    most = tiles_of(compiler.limits.chunk, active, experts, tile)
    if not _valid(compiler, f"list {tile}", op.ids, (op.ids,)):
        arguments = [STEP, compiler.at(op.ids), list_, experts, active, tile, most]
        compiler.launch("expert_lists", {}, arguments, lambda run: Grid(1) if fits(run) else None, shared=4 * experts)
        compiler.prepared[f"list {tile}"] = (op.ids,), compiler.index
    return list_, most


def as_pairs(compiler: Compiler, op: ops.ExpertLinear, experts: int, tile: int, tiled: bool, fits: Callable[[Run], bool]) -> Halves:
    """The float16 of the pairs that `as_list` gives, in its order."""
    active, chunk = op.ids.width, compiler.limits.chunk
    values, scales, _ = pair_sizes(compiler.program, compiler.limits)
    list_, most = as_list(compiler, op, experts, tile, fits)
    atoms = pair_rows(chunk, active, experts) // 8
    made = Halves(compiler.scratch("pairs as float16", values), compiler.scratch("scales of pairs", scales), atoms)
    columns = op.x.width // (active if op.separate else 1)
    arguments = [
        STEP, compiler.at(op.x), list_, most, tile, active, op.separate, columns, 0,
        Joined((made.values, made.scales, Struct((made.atoms, 0)))),
    ]  # fmt: skip

    def grid(run: Run) -> Grid | None:
        return Grid(tile * tiles_of(run.tokens, active, experts, tile)) if fits(run) else None

    compiler.launch("half_rows", {"TILED": int(tiled), "LISTED": 1, "EACH": fours(columns)}, arguments, grid)
    return made


def _label(rows: bool) -> str:
    """Rows of logits come in passes, and each pass needs its own: see `CudaStep._plan`."""
    return "logits inputs" if rows else ""


def _valid(compiler: Compiler, form: str, x: View, what: tuple[object, ...]) -> bool:
    """Whether that form was made of this last, and nothing has written to it since."""
    found = compiler.prepared.get(form)
    if found is None or found[0] != what:
        return False
    return not any(x.overlaps(write) for op in compiler.program.ops[found[1] : compiler.index] for write in op.writes)
