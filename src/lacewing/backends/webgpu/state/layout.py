"""How keys and values of a layer stand on the device: all keys, then all values, each (slot, key head, position, width)."""

from __future__ import annotations

from dataclasses import dataclass

from lacewing.backends.base import StepLimits
from lacewing.program.program import Program

CHUNK = 8  # values that kernels load at a time; rows are whole chunks, with zeros behind


@dataclass(frozen=True)
class Stored:
    """`words` of 32 bits, `chunks` of eight values; the widths are the program's own, without padding."""

    slots: int
    key_heads: int
    key_width: int
    value_width: int
    context: int
    half: bool
    values_in_keys: bool

    @property
    def itemsize(self) -> int:
        return 2 if self.half else 4

    @property
    def key_chunks(self) -> int:
        return -(-self.key_width // CHUNK)

    @property
    def value_chunks(self) -> int:
        return -(-self.value_width // CHUNK)

    @property
    def key_words(self) -> int:
        """Of a row."""
        return self.key_chunks * CHUNK * self.itemsize // 4

    @property
    def value_words(self) -> int:
        """From a row of values to the next."""
        return self.key_words if self.values_in_keys else self.value_chunks * CHUNK * self.itemsize // 4

    @property
    def values_from(self) -> int:
        """The word where values begin."""
        return self.slots * self.key_heads * self.context * self.key_words

    @property
    def nbytes(self) -> int:
        values = 0 if self.values_in_keys else self.slots * self.key_heads * self.context * self.value_words
        return 4 * (self.values_from + values)


def stored(program: Program, limits: StepLimits, layer: int) -> Stored:
    shape = program.layers[layer]
    return Stored(
        limits.slots, shape.key_heads, shape.key_width, shape.value_width, limits.context, program.kv_itemsize == 2,
        shape.values_in_keys,
    )  # fmt: skip
