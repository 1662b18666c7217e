"""Words of rows to lanes: how row-major blocks become registers with one row a lane."""

from __future__ import annotations

from llvmlite import ir
from numba import types

from lacewing.backends.cpu.kernels.simd import I32, I32V, LANES, i32v, instruction, pointer


@instruction(types.void, types.int64, types.int64, types.int64)
def transpose4(b, source, stride, target):
    """16 bytes of each of LANES rows, `stride` bytes apart, to 4 registers at `target`: register w, lane r = word w of row r."""
    quad = ir.VectorType(I32, 4)
    rows = []
    for r in range(LANES):
        address = b.add(source, b.mul(stride, ir.Constant(stride.type, r)))
        rows.append(b.load(pointer(b, address, quad), align=1))
    columns = [_join(b, rows[j::4]) for j in range(4)]  # quarter q of column j: row j + 4 q
    low01, high01 = _unpack(b, columns[0], columns[1])
    low23, high23 = _unpack(b, columns[2], columns[3])
    words = [_halves(b, low01, low23, 0), _halves(b, low01, low23, 2), _halves(b, high01, high23, 0), _halves(b, high01, high23, 2)]
    for w, word in enumerate(words):
        b.store(word, pointer(b, b.add(target, ir.Constant(target.type, 4 * LANES * w)), I32V), align=4)


def _join(b: ir.IRBuilder, parts: list[ir.Value]) -> ir.Value:
    while len(parts) > 1:
        mask = ir.Constant(ir.VectorType(I32, 2 * parts[0].type.count), list(range(2 * parts[0].type.count)))
        parts = [b.shuffle_vector(parts[i], parts[i + 1], mask) for i in range(0, len(parts), 2)]
    return parts[0]


def _shuffle(b: ir.IRBuilder, x: ir.Value, y: ir.Value, picks: tuple[int, int, int, int]) -> ir.Value:
    """The same choice of 4 lanes (0..3 of x, 4..7 of y) in every group of 4 lanes."""
    lanes = [q + p if p < 4 else LANES + q + p - 4 for q in range(0, LANES, 4) for p in picks]
    return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, LANES), lanes))


def _unpack(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> tuple[ir.Value, ir.Value]:
    return _shuffle(b, x, y, (0, 4, 1, 5)), _shuffle(b, x, y, (2, 6, 3, 7))


def _halves(b: ir.IRBuilder, x: ir.Value, y: ir.Value, first: int) -> ir.Value:
    return _shuffle(b, x, y, (first, first + 1, first + 4, first + 5))


@instruction(i32v, types.int64, types.int64)
def transpose1(b, source, stride):
    """4 bytes of each of LANES rows, `stride` bytes apart: lane r = row r."""
    made = ir.Constant(I32V, ir.Undefined)
    for r in range(LANES):
        address = b.add(source, b.mul(stride, ir.Constant(stride.type, r)))
        made = b.insert_element(made, b.load(pointer(b, address, I32), align=1), ir.Constant(I32, r))
    return made
