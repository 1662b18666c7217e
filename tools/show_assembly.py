"""Prints the machine code of a CPU kernel for an instruction set of this CPU, or for ARM.

    python tools/show_assembly.py gemm.dot.offset32 --isa avx2
    python tools/show_assembly.py quants.unpack_k.unpack_q4_k --isa neon

On x86 the dot kernels cannot be shown for ARM: Numba makes code of the host as well, and that lacks `sdot`.
"""

from __future__ import annotations

import argparse

from lacewing.backends.cpu import isa


def main() -> None:
    names = {each.name: each for each in (isa.AVX512, isa.AVX2_VNNI, isa.AVX2, isa.NEON, isa.PORTABLE)}
    parser = argparse.ArgumentParser(description="Print the machine code of a CPU kernel.")
    parser.add_argument("kernel", help="room.module.function under backends/cpu/kernels, such as gemm.dot.offset32")
    parser.add_argument("--isa", choices=names, default=isa.host_isa().name)
    chosen = names[parser.parse_args().isa]
    isa.host_isa = lambda: chosen  # before the kernels are imported: their vectors are made for it
    from lacewing.backends.cpu.compiling import assembly

    print(assembly(parser.parse_args().kernel))


if __name__ == "__main__":
    main()
