"""Which kernels a device uses: the best that it can do, or what LACEWING_WEBGPU names."""

from __future__ import annotations

import os
from dataclasses import dataclass

from lacewing.backends.webgpu.device.bindings.choice import BINDINGS
from lacewing.errors import OptionError

VARIANTS = ("subgroups", "dot", "half")


@dataclass(frozen=True)
class Variant:
    """Which kernels are used. `lanes`: threads that share a row, the size of the smallest subgroup where there are any.

    `subgroups`: sums within a subgroup instead of through workgroup memory. `dot`: activations as bytes, four products an
    instruction (`dot4I8Packed`), instead of float32. `half`: tiles of many tokens multiply float16 numbers where the weights are no
    more precise, or where there is no `dot`.
    """

    subgroups: bool
    dot: bool
    lanes: int
    half: bool = False
    fixed: bool = False  # every kernel's subgroups have that size, and need no shuffles to be added up

    @property
    def add(self) -> str:
        """WGSL's function for the sum over `lanes` threads, where there are subgroups."""
        return "subgroupAdd" if self.fixed else "team_add"

    @property
    def max(self) -> str:
        return "subgroupMax" if self.fixed else "team_max"


def wanted_variants() -> frozenset[str] | None:
    """What LACEWING_WEBGPU names beside a binding: "none", "subgroups,dot,half" ...; None: nothing. Raises OptionError."""
    text = os.environ.get("LACEWING_WEBGPU", "").strip()
    names = frozenset(name.strip() for name in text.split(",")) - set(BINDINGS)
    if not text or not names:
        return None
    if names != {"none"} and names - set(VARIANTS):
        raise OptionError(
            f"LACEWING_WEBGPU={text}: the variants are none, {', '.join(VARIANTS)}, or several with commas; "
            f"{' or '.join(BINDINGS)} beside them names the library"
        )
    return names - {"none"}
