"""Which instructions the kernels may use: found from the host's features, or forced by LACEWING_CPU for tests."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from dataclasses import dataclass
from functools import cache

import llvmlite.binding as llvm

from lacewing.errors import BackendError


@dataclass(frozen=True)
class Isa:
    """An instruction set: `lanes` 32-bit lanes a vector, and how four bytes times four bytes are summed.

    `tiles`: many tokens are multiplied with AMX (kernels/gemm/amx.py). `cpu` and `features` are LLVM's names of what is compiled
    for; "" means what the host has. `foreign_*` are used where the host is of another kind, to look at the machine code
    (tools/show_assembly.py).
    """

    name: str
    lanes: int
    dot: str  # "vnni512", "vnni256", "maddubs", "sdot" or "generic"
    cpu: str = ""
    features: str = ""
    tiles: bool = False
    foreign_triple: str = "x86_64-unknown-linux-gnu"
    foreign_cpu: str = "znver4"
    foreign_features: str = ""


AMX = Isa("amx", 16, "vnni512", tiles=True, foreign_cpu="sapphirerapids", foreign_features="+amx-tile,+amx-int8")
AVX512 = Isa("avx512", 16, "vnni512")
AVX2_VNNI = Isa("avx2vnni", 8, "vnni256")
AVX2 = Isa("avx2", 8, "maddubs", cpu="haswell", features="+f16c,+avx2,+fma,+bmi2")
NEON = Isa("neon", 4, "sdot", foreign_triple="aarch64-unknown-linux-gnu", foreign_cpu="neoverse-n1", foreign_features="+dotprod")
PORTABLE = Isa("portable", 4, "generic")
AMD = llvm.get_host_cpu_name().startswith(("znver", "bdver", "btver", "amdfam"))  # caches differ; the host names its kernels' cache
_ALL = {isa.name: isa for isa in (AMX, AVX512, AVX2_VNNI, AVX2, NEON, PORTABLE)}


@cache
def host_features() -> frozenset[str]:
    return frozenset(name for name, there in llvm.get_host_cpu_features().items() if there)


REQUEST_PERMISSION, TILE_DATA = 0x1023, 18  # ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
ARCH_PRCTL = 158  # number of the system call on x86-64


@cache
def tiles_allowed() -> bool:
    """Asks the system for AMX's registers, for all threads of this process: on Linux the first use without it is a SIGILL."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    try:
        return int(ctypes.CDLL(None, use_errno=True).syscall(ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA)) == 0
    except (OSError, AttributeError):
        return False


def supported() -> list[Isa]:
    """The instruction sets that this CPU can run, best first."""
    has = host_features()
    found = []
    if {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni", "f16c"} <= has:
        if {"amx-tile", "amx-int8"} <= has and tiles_allowed():
            found.append(AMX)
        found.append(AVX512)
    if {"avx2", "fma", "f16c", "avxvnni"} <= has:
        found.append(AVX2_VNNI)
    if {"avx2", "fma", "f16c"} <= has:
        found.append(AVX2)
    if {"neon", "dotprod"} <= has:
        found.append(NEON)
    return [*found, PORTABLE]


@cache
def host_isa() -> Isa:
    """The one that the kernels are built for. Raises BackendError where LACEWING_CPU names one that is not there."""
    forced = os.environ.get("LACEWING_CPU")
    if not forced:
        return supported()[0]
    names = [isa.name for isa in supported()]
    if forced not in names:
        raise BackendError(f"LACEWING_CPU={forced!r}: this CPU has {', '.join(names)}; unset it or choose one of these")
    return _ALL[forced]


def target_machine() -> llvm.TargetMachine:
    """LLVM's code generator for `host_isa`."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    isa = host_isa()
    if isa not in supported():
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        return llvm.Target.from_triple(isa.foreign_triple).create_target_machine(
            cpu=isa.foreign_cpu, features=isa.foreign_features, opt=3
        )
    target = llvm.Target.from_triple(llvm.get_process_triple())
    features = isa.features or llvm.get_host_cpu_features().flatten()
    return target.create_target_machine(
        cpu=isa.cpu or llvm.get_host_cpu_name(), features=features, opt=3, reloc="static", codemodel="jitdefault", jit=True
    )
