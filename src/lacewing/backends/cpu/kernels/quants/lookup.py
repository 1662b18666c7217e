"""Tables in kernels: 16 bytes that stay in a register, and code books that become constants of the object file."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from lacewing.backends.cpu.kernels.simd.registers import I8, I8V, I32V, I64, ISA, LANES, call, i32v, instruction

_SHUFFLES = {"amx": "llvm.x86.avx512.pshuf.b.512", "avx512": "llvm.x86.avx512.pshuf.b.512", "avx2vnni": "llvm.x86.avx2.pshuf.b",
             "avx2": "llvm.x86.avx2.pshuf.b", "neon": "llvm.aarch64.neon.tbl1.v16i8"}  # fmt: skip


def make_byte_table(entries: np.ndarray) -> Any:
    """`look_up(v)`: every byte of a register, 0 to 15, becomes its entry; entries: 16 integers from -128 to 255."""
    table = [int(entry) & 255 for entry in entries]

    @instruction(i32v, i32v)
    def look_up(b, v):
        """Every byte to its entry in a table of 16."""
        index = b.bitcast(v, I8V)
        if ISA.name in _SHUFFLES:
            return b.bitcast(call(b, _SHUFFLES[ISA.name], I8V, ir.Constant(I8V, table * (LANES // 4)), index), I32V)
        return b.bitcast(_select(b, index, table), I32V)

    return look_up


def _select(b: ir.IRBuilder, index: ir.Value, table: list[int]) -> ir.Value:
    """A tree of choices, one level for each bit of the index, the lowest first."""
    values = [ir.Constant(I8V, [entry] * I8V.count) for entry in table]
    for bit in (1, 2, 4, 8):
        mask = ir.Constant(I8V, [bit] * I8V.count)
        chosen = b.icmp_unsigned("==", b.and_(index, mask), mask)
        values = [b.select(chosen, high, low) for low, high in zip(values[::2], values[1::2], strict=True)]
    return values[0]


def make_table(entries: np.ndarray) -> Any:
    """`table()`: the address of the array's bytes, which become part of the kernel's object file."""
    content = np.ascontiguousarray(entries).tobytes()
    name = f"lacewing_table_{zlib.crc32(content):08x}_{len(content)}"
    kind = ir.ArrayType(I8, len(content))

    @instruction(types.int64)
    def table(b):
        """The address of a constant array."""
        made = b.module.globals.get(name)
        if made is None:
            made = ir.GlobalVariable(b.module, kind, name)
            made.linkage, made.global_constant, made.align = "internal", True, 64
            made.initializer = ir.Constant(kind, bytearray(content))
        return b.ptrtoint(made, I64)

    return table
