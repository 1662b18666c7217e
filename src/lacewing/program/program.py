"""The program: the list of ops of one step, with the weights and the keys and values that it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lacewing.program.ops import Op


@dataclass(frozen=True)
class KeyValueShape:
    """Keys and values of one layer: `key_heads` heads of `key_width` and `value_width` values a position.

    `values_in_keys`: the values are the first `value_width` values of the keys, and only these are stored (latent attention).
    """

    key_heads: int
    key_width: int
    value_width: int
    window: int | None = None  # positions that attention can still see; None: all
    values_in_keys: bool = False

    @property
    def stored_width(self) -> int:
        """Values of all heads that are stored for a position."""
        return self.key_heads * (self.key_width + (0 if self.values_in_keys else self.value_width))


@dataclass(frozen=True)
class Program:
    """One step over T tokens. T, token ids, positions, slots and output rows are run-time inputs.

    `weights` gives every weight name that the ops use, with its shape, outermost axis first.
    """

    ops: tuple[Op, ...]
    weights: Mapping[str, tuple[int, ...]]
    layers: tuple[KeyValueShape, ...]
    vocab_size: int
    kv_itemsize: int = 2  # bytes of a stored key or value: 2 float16, 4 float32

    @property
    def kv_bytes_per_token(self) -> int:
        """Of all layers."""
        return sum(layer.stored_width for layer in self.layers) * self.kv_itemsize

    def __str__(self) -> str:
        return "\n".join(str(op) for op in self.ops)
