"""How fast memory can be read: the bound of generation, which reads every weight for every token."""

from lacewing.backends.cpu.arguments import READ
from lacewing.backends.cpu.kernels.simd.instructions import load_i32, peek_i64, poke_i32, splat_i32, sum_i32
from lacewing.backends.cpu.kernels.simd.registers import VECTOR_BYTES


def read(args, state, thread, threads):
    """Each thread reads its own part of the source, in order, in four streams of registers."""
    whole = peek_i64(args + READ.bytes) // threads // (16 * VECTOR_BYTES) * (16 * VECTOR_BYTES)
    at = peek_i64(args + READ.source) + thread * whole
    end = at + whole
    a, b, c, d = splat_i32(0), splat_i32(0), splat_i32(0), splat_i32(0)
    while at < end:
        for i in range(4):
            a = a ^ load_i32(at + 4 * VECTOR_BYTES * i)
            b = b ^ load_i32(at + 4 * VECTOR_BYTES * i + VECTOR_BYTES)
            c = c ^ load_i32(at + 4 * VECTOR_BYTES * i + 2 * VECTOR_BYTES)
            d = d ^ load_i32(at + 4 * VECTOR_BYTES * i + 3 * VECTOR_BYTES)
        at += 16 * VECTOR_BYTES
    poke_i32(peek_i64(args + READ.sink) + 64 * thread, sum_i32(a ^ b ^ c ^ d))
