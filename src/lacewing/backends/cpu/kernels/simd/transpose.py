"""Words of rows to lanes: how row-major blocks become registers with one row a lane."""

from __future__ import annotations

from llvmlite import ir
from numba import types

from lacewing.backends.cpu.kernels.simd.registers import I32, I32V, LANES, constant, i32v, instruction, pointer


def emit_transpose(b: ir.IRBuilder, source: ir.Value, stride: ir.Value, words: int) -> list[ir.Value]:
    """`words` (4, 8 or 16, at most LANES) words of each of LANES rows: register w, lane r = word w of row r.

    Rows of `words` words are joined to full registers, transposed in 4 x 4 squares, and the squares moved to their place.
    """
    rows = []
    for r in range(LANES):
        address = b.add(source, b.mul(stride, ir.Constant(stride.type, r)))
        rows.append(b.load(pointer(b, address, ir.VectorType(I32, words)), align=1))
    joined = [_join(b, rows[j::words]) for j in range(words)]  # group g of register j: row j + words * g
    squares = [_square(b, joined[j : j + 4]) for j in range(0, words, 4)]  # [J][k], quad (g, q): rows 4J..4J+3, word 4q + k
    made: list[ir.Value] = [None] * words
    for k in range(4):
        for q, word in enumerate(gather_quads(b, [square[k] for square in squares])):
            made[4 * q + k] = word
    return made


def _join(b: ir.IRBuilder, parts: list[ir.Value]) -> ir.Value:
    while len(parts) > 1:
        count = 2 * parts[0].type.count
        mask = ir.Constant(ir.VectorType(I32, count), list(range(count)))
        parts = [b.shuffle_vector(parts[i], parts[i + 1], mask) for i in range(0, len(parts), 2)]
    return parts[0]


def pick(b: ir.IRBuilder, x: ir.Value, y: ir.Value, lanes: list[int]) -> ir.Value:
    """Lanes of x (0 .. LANES-1) and y (from LANES on)."""
    return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, LANES), lanes))


def within_quads(b: ir.IRBuilder, x: ir.Value, y: ir.Value, picks: tuple[int, int, int, int]) -> ir.Value:
    """The same choice of 4 lanes (0..3 of x, 4..7 of y) in every group of 4 lanes."""
    return pick(b, x, y, [q + p if p < 4 else LANES + q + p - 4 for q in range(0, LANES, 4) for p in picks])


def _square(b: ir.IRBuilder, rows: list[ir.Value]) -> list[ir.Value]:
    """4 x 4 words transposed in every group of 4 lanes of 4 registers."""
    low01, high01 = (within_quads(b, rows[0], rows[1], picks) for picks in ((0, 4, 1, 5), (2, 6, 3, 7)))
    low23, high23 = (within_quads(b, rows[2], rows[3], picks) for picks in ((0, 4, 1, 5), (2, 6, 3, 7)))
    first, second = (0, 1, 4, 5), (2, 3, 6, 7)
    return [within_quads(b, x, y, picks) for x, y in ((low01, low23), (high01, high23)) for picks in (first, second)]


def gather_quads(b: ir.IRBuilder, parts: list[ir.Value]) -> list[ir.Value]:
    """parts[J], quad (g, q) to made[q], quad (g, J): a transposition of groups of 4 lanes."""
    if len(parts) == 1:
        return parts
    if len(parts) == 2:
        groups = range(0, LANES, 8)
        return [
            pick(b, *parts, [s + i for g in groups for s in (g + 4 * q, LANES + g + 4 * q) for i in range(4)]) for q in range(2)
        ]
    even, odd = ([s + i for s in (o, o + 8, LANES + o, LANES + o + 8) for i in range(4)] for o in (0, 4))
    halves = [[pick(b, parts[j], parts[j + 1], lanes) for j in (0, 2)] for lanes in (even, odd)]  # quads 0, 2 and 1, 3
    return [pick(b, *halves[q % 2], even if q < 2 else odd) for q in range(4)]


def _store(b: ir.IRBuilder, target: ir.Value, register: int, value: ir.Value) -> None:
    b.store(value, pointer(b, b.add(target, ir.Constant(target.type, 4 * LANES * register)), I32V), align=4)


@instruction(types.void, types.int64, types.int64, types.int64)
def transpose4(b, source, stride, target):
    """16 bytes of each of LANES rows, `stride` bytes apart, to 4 registers at `target`: register w, lane r = word w of row r."""
    for w, word in enumerate(emit_transpose(b, source, stride, 4)):
        _store(b, target, w, word)


def _pieces(words: int) -> list[tuple[int, int]]:
    """(first word, words) of transpositions that this register width allows."""
    step = min(words, LANES)
    return [(first, step) for first in range(0, words, step)]


@instruction(types.void, types.int64, types.int64, types.int64)
def transpose8(b, source, stride, target):
    """As transpose4, 32 bytes of each row to 8 registers."""
    for first, count in _pieces(8):
        for w, word in enumerate(emit_transpose(b, b.add(source, ir.Constant(source.type, 4 * first)), stride, count)):
            _store(b, target, first + w, word)


def _emit_nibbles(b: ir.IRBuilder, source: ir.Value, stride: ir.Value, target: ir.Value, words: int, run: int) -> None:
    """Low nibbles of each `run` words to as many registers, then their high nibbles."""
    low = constant(I32V, 0x0F0F0F0F)
    for first, count in _pieces(words):
        for w, word in enumerate(emit_transpose(b, b.add(source, ir.Constant(source.type, 4 * first)), stride, count)):
            at = (first + w) // run * 2 * run + (first + w) % run
            _store(b, target, at, b.and_(word, low))
            _store(b, target, at + run, b.and_(b.lshr(word, constant(I32V, 4)), low))


@instruction(types.void, types.int64, types.int64, types.int64)
def nibbles16(b, source, stride, target):
    """16 bytes a row: 4 registers of low nibbles, then 4 of high ones."""
    _emit_nibbles(b, source, stride, target, 4, 4)


@instruction(types.void, types.int64, types.int64, types.int64)
def nibbles64(b, source, stride, target):
    """64 bytes a row: 8 registers of low nibbles of the first 32 bytes, 8 of their high ones; the same of the other 32."""
    _emit_nibbles(b, source, stride, target, 16, 8)


def emit_words(b: ir.IRBuilder, source: ir.Value, stride: ir.Value) -> ir.Value:
    """4 bytes of each of LANES rows, `stride` bytes apart: lane r = row r."""
    made = ir.Constant(I32V, ir.Undefined)
    for r in range(LANES):
        address = b.add(source, b.mul(stride, ir.Constant(stride.type, r)))
        made = b.insert_element(made, b.load(pointer(b, address, I32), align=1), ir.Constant(I32, r))
    return made


@instruction(i32v, types.int64, types.int64)
def transpose1(b, source, stride):
    """As emit_words."""
    return emit_words(b, source, stride)
