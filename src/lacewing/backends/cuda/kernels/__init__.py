"""CUDA kernels: the .cu files of this folder, each with what it declares of itself, and their text with headers put in.

Lines that begin with `//!` declare: `arch 80` the least compute capability (75 if not said), `arch 90a` exactly that one;
`threads N` of a block, which the macro THREADS gives; `early`: it may start before the kernel before it has ended (`ptx.cuh`);
`option --WORD` for the compiler; `NAME value ...` a macro with the values
that it may have.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from lacewing.backends.gpu.layouts import LAYOUTS
from lacewing.errors import BackendError

LEAST_ARCH = "75"
_SETS = {
    "quants": tuple(LAYOUTS),
    "coded": tuple(name for name, layout in LAYOUTS.items() if not layout.floats),
    "floats": tuple(name for name, layout in LAYOUTS.items() if layout.floats),
}
_INCLUDE = re.compile(r'^#include "([\w.]+)"\n', re.MULTILINE)
Macros = Mapping[str, object]


@dataclass(frozen=True)
class Kernel:
    """A .cu file. `macros`: the values that each macro may have."""

    name: str
    text: str
    arches: tuple[str, ...] = (LEAST_ARCH,)
    macros: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    threads: int = 256
    options: tuple[str, ...] = ()
    early: bool = False

    def runs_on(self, arch: str) -> bool:
        """Whether it is for a device of this compute capability, such as "90"."""
        number = int(arch.rstrip("af"))
        return any(int(each[:-1]) == number if each[-1] == "a" else int(each) <= number for each in self.arches)

    def variants(self) -> Iterator[dict[str, str]]:
        """All that its macros may be together."""
        for values in itertools.product(*self.macros.values()):
            yield dict(zip(self.macros, values, strict=True))

    def source(self, macros: Macros) -> str:
        """The text with its headers. Raises BackendError for macros that it does not declare."""
        for name, values in self.macros.items():
            if str(macros.get(name)) not in values:
                raise BackendError(f"the kernel {self.name} has no {name} {macros.get(name)}")
        if undeclared := macros.keys() - self.macros.keys():
            raise BackendError(f"the kernel {self.name} has no macro {min(undeclared)}")
        return _with_headers(self.text, str(macros.get("QUANT", "")), set())

    def defines(self, macros: Macros) -> tuple[str, ...]:
        """Options of the compiler."""
        return (f"-DTHREADS={self.threads}", *(f"-D{name}={value}" for name, value in sorted(macros.items())), *self.options)

    def target(self, arch: str) -> str:
        """The architecture to compile for on a device of this one."""
        exact = [each for each in self.arches if each[-1] == "a" and each[:-1] == arch]
        return f"sm_{exact[0] if exact else arch}"


def kernel(name: str) -> Kernel:
    """The kernel of that name, in whatever folder."""
    return kernels()[name]


@cache
def kernels() -> dict[str, Kernel]:
    """All, by their names. Raises ValueError for two of one name."""
    found: dict[str, Kernel] = {}
    for path in sorted(Path(__file__).parent.rglob("*.cu")):
        if path.stem in found:
            raise ValueError(f"two kernels are named {path.stem}")
        found[path.stem] = _declared(path.stem, path.read_text(encoding="utf-8"))
    return found


def _declared(name: str, text: str) -> Kernel:
    arches: list[str] = []
    options: list[str] = []
    macros: dict[str, tuple[str, ...]] = {}
    threads, early = Kernel.threads, False
    for line in re.findall(r"^//! (.*)$", text, re.MULTILINE):
        word, *values = line.split()
        if word == "arch":
            arches += values
        elif word == "threads":
            threads = int(values[0])
        elif word == "option":
            options += values
        elif word == "early":
            early = True
        else:
            macros[word] = tuple(each for value in values for each in _SETS.get(value, (value,)))
    return Kernel(name, text, tuple(arches) or (LEAST_ARCH,), macros, threads, tuple(options), early)


@cache
def _headers() -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.rglob("*.cuh"))}


def _with_headers(text: str, quant: str, seen: set[str]) -> str:
    def included(match: re.Match[str]) -> str:
        name = match.group(1)
        if name == "quant.cuh":  # of the weights that the kernel reads
            name = f"{quant.lower()}.cuh"
        if name in seen:
            return ""
        seen.add(name)
        return _with_headers(_headers()[name].replace("#pragma once\n", ""), quant, seen)

    return _INCLUDE.sub(included, text)
