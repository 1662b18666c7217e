"""Rows that the host brings before each run: of embeddings that come with a batch, and of tables that stay in their files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from lacewing.backends.batch import Batch
from lacewing.backends.gpu.arena import Arena
from lacewing.backends.weights import WeightView, rows_of
from lacewing.program.ops import Embed
from lacewing.program.program import Program
from lacewing.program.stream_ops import Lookup


class Writes(Protocol):
    """A device that the host can write to."""

    def write(self, buffer: Any, offset: int, data: np.ndarray) -> None:
        """From byte `offset` on."""


class HostRows:
    """Of a program: its `Embed` and its `Lookup` ops."""

    def __init__(self, program: Program, weights: Mapping[str, WeightView], arena: Arena):
        self._tables = [(op, weights[op.table], arena.view(op.out)) for op in program.ops if isinstance(op, Lookup)]
        self._embedded = next((arena.view(op.out) for op in program.ops if isinstance(op, Embed)), None)

    @property
    def of_tables(self) -> bool:
        """Whether a token's id must be known to the host before its run."""
        return bool(self._tables)

    def write(self, device: Writes, arena: Any, batch: Batch) -> None:
        """All that the batch needs, to the activations."""
        if self._embedded is not None and (given := batch.given) is not None:
            for token, row in zip(*given, strict=True):
                device.write(arena, 4 * (self._embedded.base + int(token) * self._embedded.stride), row)
        for op, table, place in self._tables:
            known = (batch.tokens >= 0) & (batch.tokens < table.shape[0])
            ids = np.where(known, batch.tokens, op.other)
            for token, row in enumerate(rows_of(table, ids) * np.float32(op.scale)):
                device.write(arena, 4 * (place.base + token * place.stride), row)
