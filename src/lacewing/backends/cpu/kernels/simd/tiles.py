"""AMX: registers of 16 rows of up to 64 bytes, and the product of two of them (Intel's manual, volume 1, chapter 18).

A thread gives the registers their sizes (`configure`) before it uses them, and `release` makes them cost nothing again. LLVM's
intrinsics name a register by a number in the instruction, so nothing else may hold a tile meanwhile.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from lacewing.backends.cpu.kernels.simd.instructions import poke_i8, poke_i64
from lacewing.backends.cpu.kernels.simd.registers import I8, I64, call, inline, instruction, pointer

ROWS = 16  # most rows of a register
ROW_BYTES = 64  # most bytes of a row
CONFIG_BYTES = 64
CONFIG_WIDTHS, CONFIG_ROWS = 16, 48  # uint16 bytes of a row and uint8 rows of each register; byte 0 is the palette
SUMS, BYTES, WEIGHTS = 0, 1, 2  # registers: int32 sums, and the two factors


def emit_load(b: ir.IRBuilder, register: int, p: ir.Value, stride: ir.Value) -> None:
    call(b, "llvm.x86.tileloadd64", ir.VoidType(), ir.Constant(I8, register), pointer(b, p, I8), stride)


@instruction(types.void, types.int64)
def load_config(b, p):
    """Sizes of all registers, CONFIG_BYTES."""
    call(b, "llvm.x86.ldtilecfg", ir.VoidType(), pointer(b, p, I8))


@instruction(types.void)
def release(b):
    """The registers are empty again, and without sizes."""
    call(b, "llvm.x86.tilerelease", ir.VoidType())


@inline
def configure(p, columns):
    """Registers for `multiply` with so many columns; p: address of CONFIG_BYTES to use."""
    for word in range(CONFIG_BYTES // 8):
        poke_i64(p + 8 * word, 0)
    poke_i8(p, 1)
    for register, width, rows in ((SUMS, ROW_BYTES, ROWS), (BYTES, columns, ROWS), (WEIGHTS, ROW_BYTES, columns // 4)):
        poke_i8(p + CONFIG_WIDTHS + 2 * register, width)
        poke_i8(p + CONFIG_ROWS + register, rows)
    load_config(p)


def make_multiply(signed: bool) -> Any:
    """`multiply(x, x_stride, w, to)`: the products of 16 rows of bytes with 16 others, to int32 (16, 16).

    x: signed bytes, a row every `x_stride` bytes; w: as in a tile of kernels/gemm/dot.py, 4 columns of all rows in 64 bytes, signed
    or not.
    """
    product = f"llvm.x86.tdpb{'ss' if signed else 'su'}d"

    @instruction(types.void, types.int64, types.int64, types.int64, types.int64)
    def multiply(b, x, x_stride, w, to):
        call(b, "llvm.x86.tilezero", ir.VoidType(), ir.Constant(I8, SUMS))
        emit_load(b, BYTES, x, x_stride)
        emit_load(b, WEIGHTS, w, ir.Constant(I64, ROW_BYTES))
        call(b, product, ir.VoidType(), *[ir.Constant(I8, n) for n in (SUMS, BYTES, WEIGHTS)])
        call(b, "llvm.x86.tilestored64", ir.VoidType(), ir.Constant(I8, SUMS), pointer(b, to, I8), ir.Constant(I64, ROW_BYTES))

    return multiply
