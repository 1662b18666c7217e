"""Embeddings of tables that are not in RAM: the rows of a run's tokens are read before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from lacewing.backends.cpu.memory import Memory
from lacewing.backends.cpu.quants import SCALED_FLOATS
from lacewing.backends.weights import TensorSpec, WeightView
from lacewing.program.ops import Embed
from lacewing.program.program import Program


def row_tables(program: Program, weights: Mapping[str, TensorSpec]) -> frozenset[str]:
    """Those that only `Embed` reads, by kernels that take rows from elsewhere (`embed.py`)."""
    names: dict[bool, set[str]] = {True: set(), False: set()}
    for op in program.ops:
        names[isinstance(op, Embed)].update(op.weight_names)
    found = names[True] - names[False]
    return frozenset(name for name in found if weights[name].scales is None and weights[name].quant.name not in SCALED_FLOATS)


@dataclass(frozen=True)
class GatheredRows:
    """The place of a run's rows of one table, in the order of its tokens."""

    weight: WeightView
    memory: Memory

    @property
    def area(self) -> str:
        return f"rows of {self.weight.name}"

    @property
    def row_bytes(self) -> int:
        return self.weight.quant.row_bytes(self.weight.shape[1])

    @property
    def address(self) -> int:
        return self.memory.area(self.area, self.memory.chunk * self.row_bytes)

    def bring(self, tokens: np.ndarray, check: Callable[[], None]) -> None:
        """Those of a run's tokens, if the table is not in RAM. `check` may raise while it waits. Raises ModelFormatError."""
        if (table := self.weight.row_table) is None:
            return
        known = np.flatnonzero((tokens >= 0) & (tokens < self.weight.shape[0]))
        if not len(known):
            return
        rows = self.memory.buffers[self.area].reshape(self.memory.chunk, self.row_bytes)
        found = np.empty((len(known), self.row_bytes), np.uint8)
        table.read(tokens[known], found, check)
        rows[known] = found
