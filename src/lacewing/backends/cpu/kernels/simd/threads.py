"""What threads do to memory that they share, and calls through addresses."""

from __future__ import annotations

from llvmlite import ir
from numba import types

from lacewing.backends.cpu.kernels.simd.registers import I32, I64, ISA, call, instruction, pointer


@instruction(types.int64, types.int64, types.int64)
def atomic_add(b, p, n):
    """Add to the int64 at an address; the value before."""
    return b.atomic_rmw("add", pointer(b, p, I64), n, "seq_cst")


@instruction(types.int64, types.int64)
def atomic_load(b, p):
    return b.load_atomic(pointer(b, p, I64), "acquire", 8)


@instruction(types.int64, types.int64, types.int64)
def atomic_swap(b, p, n):
    """Exchange the int64 at an address; the value before."""
    return b.atomic_rmw("xchg", pointer(b, p, I64), n, "seq_cst")


@instruction(types.void)
def pause(b):
    """Tell the CPU that this is a spin loop."""
    if ISA.name in ("amx", "avx512", "avx2vnni", "avx2"):
        call(b, "llvm.x86.sse2.pause", ir.VoidType())
    elif ISA.name == "neon":
        call(b, "llvm.aarch64.hint", ir.VoidType(), ir.Constant(I32, 1))


@instruction(types.void, types.int64, types.int64, types.int64, types.int64, types.int64)
def call_kernel(b, address, args, state, thread, threads):
    """Call a compiled kernel through its address."""
    kind = ir.FunctionType(ir.VoidType(), [I64] * 4)
    b.call(b.inttoptr(address, kind.as_pointer()), [args, state, thread, threads])


@instruction(types.int64, types.int64, types.int64, types.int64, types.int64, types.int64)
def call_system(b, address, one, two, three, four):
    """Call a function of the C library that takes up to four integers or addresses. What is no `ssize_t` has an upper half that
    means nothing."""
    kind = ir.FunctionType(I64, [I64] * 4)
    return b.call(b.inttoptr(address, kind.as_pointer()), [one, two, three, four])


@instruction(types.int32, types.int64)
def call_i32(b, address):
    """Call an `int f(void)` of the C library."""
    return b.call(b.inttoptr(address, ir.FunctionType(I32, []).as_pointer()), [])
