"""AMX in memory: `use` lets this process run the kernels for AMX on any CPU, with loops in place of its instructions.

Everything else is what AMX runs: how activations are packed, which tile is multiplied when, and what becomes of the sums. The loops
do what Intel's manual says of tdpbssd and tdpbsud, with the sizes that ldtilecfg was given.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lacewing.backends.cpu import compiling, isa

EMULATED = isa.Isa("emulated", 16, "generic", tiles=True)  # vectors of 16 lanes, of whatever this CPU has
CONFIG = np.zeros(8, np.int64)  # of the one thread that may run, and only of this process: the kernels need a cache of their own


def use() -> None:
    """Before kernels are imported."""
    isa.supported = lambda: [EMULATED]
    isa.host_isa.cache_clear()
    compiling.process_count = lambda kernels: 0

    from lacewing.backends.cpu.kernels.simd import tiles
    from lacewing.backends.cpu.kernels.simd.instructions import peek_i8, peek_i64, peek_u8, poke_i32, poke_i64
    from lacewing.backends.cpu.kernels.simd.registers import inline

    config, words = int(CONFIG.ctypes.data), len(CONFIG)
    widths, counts = config + tiles.CONFIG_WIDTHS, config + tiles.CONFIG_ROWS
    sums, x_register, w_register, row_bytes = tiles.SUMS, tiles.BYTES, tiles.WEIGHTS, tiles.ROW_BYTES

    @inline
    def load_config(p: int) -> None:
        for word in range(words):
            poke_i64(config + 8 * word, peek_i64(p + 8 * word))

    @inline
    def release() -> None:
        for word in range(words):
            poke_i64(config + 8 * word, 0)

    def make_multiply(signed: bool) -> Any:
        @inline
        def multiply(x: int, x_stride: int, w: int, to: int) -> None:
            depth = peek_u8(counts + w_register)
            right = peek_u8(config) == 1 and peek_u8(widths + 2 * x_register) == 4 * depth
            for row in range(peek_u8(counts + sums) if right else 0):
                for column in range(peek_u8(widths + 2 * sums) // 4):
                    total = 0
                    for k in range(depth):
                        for i in range(4):
                            at = w + row_bytes * k + 4 * column + i
                            total += peek_i8(x + x_stride * row + 4 * k + i) * (peek_i8(at) if signed else peek_u8(at))
                    poke_i32(to + row_bytes * row + 4 * column, total)

        return multiply

    tiles.load_config, tiles.release, tiles.make_multiply = load_config, release, make_multiply
