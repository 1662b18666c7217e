"""SIMD registers as ordinary Numba values: their types, their operators, and how instructions on them are declared.

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
GIVEN = None  # instead of a type: that of the value which a kernel gives, such as a tuple of any length


def instruction(result: types.Type | None, *arguments: types.Type | None) -> Callable[[Emit], Any]:
    """Turn `emit(builder, *llvm_values)` into a function that kernels can call, with these types. The result GIVEN is of the first
    argument's type.

    Integers of any width are taken where int64 is asked for, and floats where float32 is.
    """

    def declare(emit: Emit) -> Any:
        def typer(typingctx: Any, *given: types.Type) -> Any:
            def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> Any:
                pairs = zip(values, sig.args, arguments, strict=True)
                made = emit(
                    builder, *(context.cast(builder, value, have, have if want is GIVEN else want) for value, have, want in pairs)
                )
                return context.get_dummy_value() if result == types.void else made

            return signature(given[0] if result is GIVEN else result, *given), codegen

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
