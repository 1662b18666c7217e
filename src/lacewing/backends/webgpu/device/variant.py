"""Which kernels a device uses: the best that it can do, or what LACEWING_WEBGPU names."""

from __future__ import annotations

import os
from dataclasses import dataclass

from lacewing.backends.webgpu.device.bindings.choice import BINDINGS
from lacewing.errors import OptionError

VARIANTS = ("subgroups", "dot", "half", "units")


@dataclass(frozen=True)
class Units:
    """How matrix units are used: the work of a workgroup, in squares of 16 x 16 outputs, which a subgroup makes together.

    A workgroup has `down` x `across` subgroups for tokens x rows; each makes `high` x `wide` squares. `depth` columns, 32 or 64,
    pass through workgroup memory at a time.
    """

    down: int
    across: int
    high: int
    wide: int
    depth: int
    lanes: int = 32

    def __post_init__(self) -> None:
        if self.tokens * self.depth // 8 % self.threads or self.rows * self.depth // 32 % self.threads:
            raise ValueError(f"{self}: its threads do not share out the loads of its tiles evenly")

    @property
    def tokens(self) -> int:
        return 16 * self.down * self.high

    @property
    def rows(self) -> int:
        return 16 * self.across * self.wide

    @property
    def threads(self) -> int:
        return self.lanes * self.down * self.across

    @property
    def pitch(self) -> int:
        """Numbers from one row of a tile to the next."""
        return self.depth + 8

    @property
    def strip(self) -> int:
        """Numbers from one row to the next of the sums of 16 tokens that a subgroup has."""
        return 16 * self.wide + 4

    @property
    def memory(self) -> int:
        """Bytes of workgroup memory for the tiles, or for a strip of each subgroup."""
        return max(2 * (self.tokens + self.rows) * self.pitch, 4 * 16 * self.down * self.across * self.strip)

    @property
    def narrower(self) -> Units | None:
        """For half as many tokens, with as many rows and threads; None where a tile has no fewer."""
        if self.down % 2 or self.wide % 2:
            return None
        return Units(self.down // 2, 2 * self.across, self.high, self.wide // 2, self.depth, self.lanes)

    @property
    def skinnier(self) -> list[Units]:
        """For fewer tokens, by halves down to 16, with as many rows."""
        made, units = [], self
        while units.tokens > 16:
            if units.narrower is not None:
                units = units.narrower
            elif units.high % 2 or units.across % 2:
                break
            else:  # a row of squares in place of two, by half of the threads
                units = Units(units.down, units.across // 2, units.high // 2, 2 * units.wide, units.depth, units.lanes)
            made.append(units)
        return made

    @property
    def nbytes(self) -> int:
        """Of workgroup memory: the tiles, and scales of tokens."""
        return self.memory + 4 * self.tokens


# By trial on an H200, as a prototype: 175 TFLOP/s of 512 x 4096 x 4096, with 32 columns 144; 4 x 4 squares a subgroup spill: 30.
UNITS = (Units(4, 2, 2, 4, 64),)


@dataclass(frozen=True)
class Variant:
    """Which kernels are used. `lanes`: threads that share a row, the size of the smallest subgroup where there are any.

    `subgroups`: sums within a subgroup instead of through workgroup memory. `dot`: activations as bytes, four products an
    instruction (`dot4I8Packed`), instead of float32. `half`: tiles of many tokens multiply float16 numbers where the weights are no
    more precise, or where there is no `dot`. `units`: tiles of many tokens are made by matrix units, in float16.
    """

    subgroups: bool
    dot: bool
    lanes: int
    half: bool = False
    units: Units | None = None
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
            "dawn beside them takes Dawn in place of wgpu-native"
        )
    return names - {"none"}
