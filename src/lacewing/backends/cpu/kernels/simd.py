"""SIMD vectors as ordinary Numba values, and the instructions on them as functions.

`f32v` and `i32v` hold LANES 32-bit lanes. Bytes and 16-bit values travel inside `i32v`, four or two a lane, so that one
register has one type. Memory is an integer address. Everything is inlined; nothing allocates or raises.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from lacewing.backends.cpu.isa import host_isa

ISA = host_isa()
LANES = ISA.lanes
VECTOR_BYTES = 4 * LANES

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
F16, F32, F64 = ir.HalfType(), ir.FloatType(), ir.DoubleType()
F32V, I32V = ir.VectorType(F32, LANES), ir.VectorType(I32, LANES)
I8V, I16V = ir.VectorType(I8, 4 * LANES), ir.VectorType(I16, 2 * LANES)


class VectorType(types.Type):
    """A SIMD register of LANES lanes."""

    def __init__(self, name: str, llvm_type: ir.VectorType):
        self.llvm_type = llvm_type
        super().__init__(name=name)


f32v, i32v = VectorType("f32v", F32V), VectorType("i32v", I32V)


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: VectorType):
        super().__init__(dmm, fe_type, fe_type.llvm_type)


# ---- declaring instructions -----------------------------------------------------------------------------------------

Emit = Callable[..., ir.Value]


def instruction(result: types.Type, *arguments: types.Type) -> Callable[[Emit], Any]:
    """Turn `emit(builder, *llvm_values)` into a function that kernels can call, with fixed types.

    Integers of any width are taken where int64 is asked for, and floats where float32 is.
    """

    def declare(emit: Emit) -> Any:
        def typer(typingctx: Any, *given: types.Type) -> Any:
            def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> Any:
                cast = [context.cast(builder, v, have, want) for v, have, want in zip(values, sig.args, arguments, strict=True)]
                made = emit(builder, *cast)
                return context.get_dummy_value() if result == types.void else made

            return signature(result, *given), codegen

        names = ", ".join(f"a{i}" for i in range(len(arguments)))
        scope: dict[str, Any] = {"typer": typer}
        exec(f"def {emit.__name__}(typingctx, {names}):\n    return typer(typingctx, {names})", scope)
        made = intrinsic(scope[emit.__name__])
        made.__doc__ = emit.__doc__
        return made

    return declare


def call(b: ir.IRBuilder, name: str, result: ir.Type, *values: ir.Value) -> ir.Value:
    """Call an LLVM intrinsic by its full name."""
    fn = cgutils.get_or_insert_function(b.module, ir.FunctionType(result, [v.type for v in values]), name)
    return b.call(fn, values)


def pointer(b: ir.IRBuilder, address: ir.Value, kind: ir.Type) -> ir.Value:
    return b.inttoptr(address, kind.as_pointer())


def constant(kind: ir.VectorType, value: float) -> ir.Constant:
    return ir.Constant(kind, [value] * kind.count)


def splat(b: ir.IRBuilder, value: ir.Value, count: int = LANES) -> ir.Value:
    one = b.insert_element(ir.Constant(ir.VectorType(value.type, count), ir.Undefined), value, ir.Constant(I32, 0))
    mask = ir.Constant(ir.VectorType(I32, count), [0] * count)
    return b.shuffle_vector(one, ir.Constant(one.type, ir.Undefined), mask)


def inline(function: Callable[..., Any]) -> Any:
    """A part of a kernel, compiled into every kernel that calls it."""
    return njit(error_model="numpy", forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)


# ---- memory ---------------------------------------------------------------------------------------------------------


@instruction(f32v, types.int64)
def load_f32(b, p):
    """LANES float32."""
    return b.load(pointer(b, p, F32V), align=4)


@instruction(types.void, types.int64, f32v)
def store_f32(b, p, v):
    b.store(v, pointer(b, p, F32V), align=4)


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


@instruction(types.void, types.int64, types.int32)
def poke_i32(b, p, v):
    b.store(v, pointer(b, p, I32), align=1)


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


@instruction(types.float32, f32v)
def top_f32(b, v):
    """The largest lane."""
    return reduce_lanes(b, v, lambda x, y: call(b, f"llvm.maxnum.v{x.type.count}f32", x.type, x, y))


@instruction(types.int32, i32v)
def sum_i32(b, v):
    return reduce_lanes(b, v, b.add)


# ---- operators ------------------------------------------------------------------------------------------------------


def _operator(op: Any, kind: VectorType, emit: str) -> None:
    class Template(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            return signature(kind, kind, kind) if args == (kind, kind) else None

    infer_global(op)(Template)

    @lower_builtin(op, kind, kind)
    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return getattr(builder, emit)(*args)


for _op, _float, _int in ((operator.add, "fadd", "add"), (operator.sub, "fsub", "sub"), (operator.mul, "fmul", "mul")):
    _operator(_op, f32v, _float)
    _operator(_op, i32v, _int)
_operator(operator.truediv, f32v, "fdiv")
_operator(operator.and_, i32v, "and_")
_operator(operator.or_, i32v, "or_")
_operator(operator.xor, i32v, "xor")


# ---- threads --------------------------------------------------------------------------------------------------------


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
    """Tell the processor that this is a spin loop."""
    if ISA.name in ("avx512", "avx2vnni", "avx2"):
        call(b, "llvm.x86.sse2.pause", ir.VoidType())
    elif ISA.name == "neon":
        call(b, "llvm.aarch64.hint", ir.VoidType(), ir.Constant(I32, 1))


@instruction(types.void, types.int64, types.int64, types.int64, types.int64, types.int64)
def call_kernel(b, address, args, state, thread, threads):
    """Call a compiled kernel through its address."""
    kind = ir.FunctionType(ir.VoidType(), [I64] * 4)
    b.call(b.inttoptr(address, kind.as_pointer()), [args, state, thread, threads])


@instruction(types.int32, types.int64)
def call_i32(b, address):
    """Call an `int f(void)` of the C library."""
    return b.call(b.inttoptr(address, ir.FunctionType(I32, []).as_pointer()), [])
