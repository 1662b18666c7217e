"""Prints the machine code of a CPU kernel for an instruction set of this CPU, for ARM or, on any x86, for AMX.

    python tools/show_assembly.py gemm.dot.offset32 --isa avx2
    python tools/show_assembly.py quants.unpack_k.unpack_q4_k --isa neon
    python tools/show_assembly.py gemm.amx.min32 --isa amx

On x86 the dot kernels cannot be shown for ARM: Numba makes code of the host as well, and that lacks `sdot`.
"""

from __future__ import annotations

import argparse
import os
import platform

from lacewing.backends.cpu import isa


def main() -> None:
    names = {each.name: each for each in (isa.AMX, isa.AVX512, isa.AVX2_VNNI, isa.AVX2, isa.NEON, isa.PORTABLE)}
    parser = argparse.ArgumentParser(description="Print the machine code of a CPU kernel.")
    parser.add_argument("kernel", help="room.module.function under backends/cpu/kernels, such as gemm.dot.offset32")
    parser.add_argument("--isa", choices=names, default=isa.host_isa().name)
    chosen = names[parser.parse_args().isa]
    isa.host_isa = lambda: chosen  # before the kernels are imported: their vectors are made for it
    if chosen not in isa.supported() and platform.machine().lower() in ("x86_64", "amd64") and "x86_64" in chosen.foreign_triple:
        # Numba makes code for itself as well, which this CPU never runs.
        os.environ |= {"NUMBA_CPU_NAME": chosen.foreign_cpu, "NUMBA_CPU_FEATURES": chosen.foreign_features}
    from lacewing.backends.cpu.compiling import assembly

    print(assembly(parser.parse_args().kernel))


if __name__ == "__main__":
    main()
