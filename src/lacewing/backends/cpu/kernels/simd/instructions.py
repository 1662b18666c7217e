"""Instructions on registers and numbers as functions: memory, and what is done to lanes (kernels/simd/registers.py)."""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from numba import types

from lacewing.backends.cpu.isa import AMD
from lacewing.backends.cpu.kernels.simd.registers import (
    F16,
    F32,
    F32V,
    F64,
    I8,
    I16,
    I32,
    I32V,
    I64,
    LANES,
    Emit,
    call,
    constant,
    f32v,
    i32v,
    instruction,
    pointer,
    splat,
)

# ---- memory ---------------------------------------------------------------------------------------------------------


@instruction(f32v, types.int64)
def load_f32(b, p):
    """LANES float32."""
    return b.load(pointer(b, p, F32V), align=4)


@instruction(types.void, types.int64, f32v)
def store_f32(b, p, v):
    b.store(v, pointer(b, p, F32V), align=4)


@instruction(types.void, types.int64, f32v)
def stream_f32(b, p, v):
    """As store_f32, past the caches, to an address that a register's bytes divide. Barriers between threads order it as others."""
    made = b.store(v, pointer(b, p, F32V), align=4 * LANES)
    made.set_metadata("nontemporal", b.module.add_metadata([ir.Constant(I32, 1)]))


@instruction(i32v, types.int64)
def load_i32(b, p):
    """A register of integers or bytes."""
    return b.load(pointer(b, p, I32V), align=1)


@instruction(types.void, types.int64, i32v)
def store_i32(b, p, v):
    b.store(v, pointer(b, p, I32V), align=1)


@instruction(f32v, types.int64)
def load_f16(b, p):
    """LANES float16, widened."""
    return b.fpext(b.load(pointer(b, p, ir.VectorType(F16, LANES)), align=2), F32V)


@instruction(types.void, types.int64, f32v)
def store_f16(b, p, v):
    """LANES values rounded to float16."""
    b.store(b.fptrunc(v, ir.VectorType(F16, LANES)), pointer(b, p, ir.VectorType(F16, LANES)), align=2)


@instruction(f32v, types.int64)
def load_bf16(b, p):
    """LANES bfloat16, widened."""
    raw = b.load(pointer(b, p, ir.VectorType(I16, LANES)), align=2)
    return b.bitcast(b.shl(b.zext(raw, I32V), constant(I32V, 16)), F32V)


@instruction(types.void, types.int64, i32v)
def store_i8(b, p, v):
    """The low byte of every lane, LANES bytes."""
    b.store(b.trunc(v, ir.VectorType(I8, LANES)), pointer(b, p, ir.VectorType(I8, LANES)), align=1)


@instruction(types.void, types.int64, i32v)
def scatter_i8(b, p, v):
    """The low byte of every lane, LANES bytes apart."""
    narrow = b.trunc(v, ir.VectorType(I8, LANES))
    for lane in range(LANES):
        value = b.extract_element(narrow, ir.Constant(I32, lane))
        b.store(value, pointer(b, b.add(p, ir.Constant(I64, LANES * lane)), I8), align=1)


def _scalar_load(kind: ir.Type, align: int) -> Emit:
    return lambda b, p: b.load(pointer(b, p, kind), align=align)


def _named(emit: Emit, name: str, doc: str) -> Emit:
    emit.__name__, emit.__doc__ = name, doc
    return emit


peek_i64 = instruction(types.int64, types.int64)(_named(_scalar_load(I64, 1), "peek_i64", "One int64."))
peek_i32 = instruction(types.int32, types.int64)(_named(_scalar_load(I32, 1), "peek_i32", "One int32."))
peek_u8 = instruction(types.uint8, types.int64)(_named(_scalar_load(I8, 1), "peek_u8", "One byte."))
peek_i8 = instruction(types.int8, types.int64)(_named(_scalar_load(I8, 1), "peek_i8", "One signed byte."))
peek_u16 = instruction(types.uint16, types.int64)(_named(_scalar_load(I16, 1), "peek_u16", "One uint16."))
peek_f32 = instruction(types.float32, types.int64)(_named(_scalar_load(F32, 1), "peek_f32", "One float32."))
peek_f64 = instruction(types.float64, types.int64)(_named(_scalar_load(F64, 1), "peek_f64", "One float64."))


@instruction(types.float32, types.int64)
def peek_f16(b, p):
    """One float16, widened."""
    return b.fpext(b.load(pointer(b, p, F16), align=1), F32)


@instruction(types.float32, types.int64)
def peek_bf16(b, p):
    """One bfloat16, widened."""
    return b.bitcast(b.shl(b.zext(b.load(pointer(b, p, I16), align=1), I32), ir.Constant(I32, 16)), F32)


@instruction(types.void, types.int64, types.float32)
def poke_f32(b, p, v):
    b.store(v, pointer(b, p, F32), align=1)


@instruction(types.void, types.int64, types.int64)
def poke_i8(b, p, v):
    """The low byte of an integer."""
    b.store(b.trunc(v, I8), pointer(b, p, I8), align=1)


@instruction(types.void, types.int64, types.int32)
def poke_i32(b, p, v):
    b.store(v, pointer(b, p, I32), align=1)


@instruction(types.void, types.int64, types.float64)
def poke_f64(b, p, v):
    b.store(v, pointer(b, p, F64), align=1)


@instruction(types.void, types.int64, types.int64)
def poke_i64(b, p, v):
    b.store(v, pointer(b, p, I64), align=1)


@instruction(types.void, types.int64, types.float32)
def poke_f16(b, p, v):
    """One value rounded to float16."""
    b.store(b.fptrunc(v, F16), pointer(b, p, F16), align=1)


@instruction(types.void, types.int64)
def prefetch(b, p):
    """Ask for the cache line of an address."""
    flags = [ir.Constant(I32, n) for n in (0, 3, 1)]
    call(b, "llvm.prefetch.p0", ir.VoidType(), pointer(b, p, I8), *flags)


@instruction(types.void, types.int64)
def prefetch_far(b, p):
    """As prefetch, into the second cache."""
    call(b, "llvm.prefetch.p0", ir.VoidType(), pointer(b, p, I8), *[ir.Constant(I32, n) for n in (0, 2, 1)])


@instruction(types.void, types.int64)
def prefetch_once(b, p):
    """As prefetch, of what is used once: on AMD it does not push activations out of the caches; on Intel it would be slower."""
    call(b, "llvm.prefetch.p0", ir.VoidType(), pointer(b, p, I8), *[ir.Constant(I32, n) for n in (0, 0 if AMD else 3, 1)])


# ---- lanes ----------------------------------------------------------------------------------------------------------


@instruction(f32v, types.float32)
def splat_f32(b, x):
    return splat(b, x)


@instruction(i32v, types.int32)
def splat_i32(b, x):
    return splat(b, x)


@instruction(f32v, i32v)
def to_f32(b, v):
    return b.sitofp(v, F32V)


@instruction(i32v, f32v)
def round_i32(b, v):
    """To the nearest integer, ties to even."""
    return b.fptosi(call(b, f"llvm.rint.v{LANES}f32", F32V, v), I32V)


@instruction(i32v, f32v)
def truncate_i32(b, v):
    """Towards zero."""
    return b.fptosi(v, I32V)


@instruction(f32v, f32v, f32v, f32v)
def fma(b, x, y, z):
    """x * y + z, rounded once."""
    return call(b, f"llvm.fma.v{LANES}f32", F32V, x, y, z)


@instruction(types.float32, types.float32, types.float32, types.float32)
def fma1(b, x, y, z):
    """x * y + z of scalars, rounded once."""
    return call(b, "llvm.fma.f32", F32, x, y, z)


@instruction(f32v, f32v, f32v)
def max_f32(b, x, y):
    return call(b, f"llvm.maxnum.v{LANES}f32", F32V, x, y)


@instruction(types.float32, types.float32)
def sqrt1(b, x):
    return call(b, "llvm.sqrt.f32", F32, x)


@instruction(f32v, i32v)
def floats_of(b, v):
    return b.bitcast(v, F32V)


@instruction(i32v, i32v, types.int32)
def shift_right(b, v, n):
    """Logical, every lane."""
    return b.lshr(v, splat(b, n))


@instruction(i32v, i32v, types.int32)
def shift_left(b, v, n):
    return b.shl(v, splat(b, n))


@instruction(i32v, i32v, types.int32)
def arithmetic_right(b, v, n):
    """Shift right, keeping the sign of every lane."""
    return b.ashr(v, splat(b, n))


@instruction(f32v, i32v)
def low_f16(b, v):
    """The float16 in the low half of every lane, widened."""
    half = b.trunc(v, ir.VectorType(I16, LANES))
    return b.fpext(b.bitcast(half, ir.VectorType(F16, LANES)), F32V)


@instruction(f32v, i32v)
def high_f16(b, v):
    """The float16 in the high half of every lane, widened."""
    half = b.trunc(b.lshr(v, constant(I32V, 16)), ir.VectorType(I16, LANES))
    return b.fpext(b.bitcast(half, ir.VectorType(F16, LANES)), F32V)


@instruction(f32v, f32v, types.int64, types.int64, types.int64)
def mask_outside(b, v, first, low, high):
    """v in the lanes where low <= first + lane <= high, else minus infinity."""
    index = b.add(splat(b, b.trunc(first, I32)), ir.Constant(I32V, list(range(LANES))))
    seen = b.and_(b.icmp_signed(">=", index, splat(b, b.trunc(low, I32))), b.icmp_signed("<=", index, splat(b, b.trunc(high, I32))))
    return b.select(seen, v, constant(F32V, float("-inf")))


@instruction(f32v, f32v, f32v, f32v, f32v)
def select_lt(b, x, y, then, other):
    """`then` where x < y, else `other`."""
    return b.select(b.fcmp_ordered("<", x, y), then, other)


@instruction(i32v, f32v, f32v)
def unordered(b, x, y):
    """Lanes of ones where x or y is NaN, else of zeros."""
    return b.sext(b.fcmp_unordered("uno", x, y), I32V)


def reduce_lanes(b: ir.IRBuilder, v: ir.Value, combine: Callable[[ir.Value, ir.Value], ir.Value]) -> ir.Value:
    """Fold the upper half on the lower until one lane is left: a fixed order on every machine of this width."""
    count = v.type.count
    while count > 1:
        count //= 2
        index = ir.VectorType(I32, count)
        low, high = (b.shuffle_vector(v, v, ir.Constant(index, list(range(s, s + count)))) for s in (0, count))
        v = combine(low, high)
    return b.extract_element(v, ir.Constant(I32, 0))


@instruction(types.float32, f32v)
def sum_f32(b, v):
    """All lanes, in a fixed order."""
    return reduce_lanes(b, v, b.fadd)


@instruction(f32v, f32v)
def butterflies(b, v):
    """The lanes times the Hadamard matrix of LANES rows."""
    half = 1
    while half < LANES:
        others = ir.Constant(I32V, [lane ^ half for lane in range(LANES)])
        signs = ir.Constant(F32V, [-1.0 if lane & half else 1.0 for lane in range(LANES)])
        v = b.fadd(b.shuffle_vector(v, v, others), b.fmul(v, signs))
        half *= 2
    return v


@instruction(types.float32, f32v)
def top_f32(b, v):
    """The largest lane."""
    return reduce_lanes(b, v, lambda x, y: call(b, f"llvm.maxnum.v{x.type.count}f32", x.type, x, y))


@instruction(types.int32, i32v)
def sum_i32(b, v):
    return reduce_lanes(b, v, b.add)
