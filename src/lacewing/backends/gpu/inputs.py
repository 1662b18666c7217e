"""What the host tells the kernels of a run: one buffer of 32-bit words that every kernel binds, block tables at its end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lacewing.backends.batch import Batch, StepLimits
from lacewing.program.program import Program
from lacewing.program.states import PAGE

HEADER = 16  # words before the arrays; see `fields`
PREFILL_TOKENS = 16  # tokens of a row from which on attention takes tiles of them


@dataclass(frozen=True)
class Inputs:
    """The word at which each array begins; the kernels' header `step` reads them. Tables: (paged group, row, page)."""

    chunk: int
    rows: int
    fixed: int  # groups of fixed states
    paged: int
    table_width: int

    @staticmethod
    def of(program: Program, limits: StepLimits) -> Inputs:
        fixed = sum(not group.paged for group in program.groups)
        return Inputs(limits.chunk, limits.rows, fixed, len(program.groups) - fixed, -(-limits.context // PAGE))

    @property
    def tokens(self) -> int:
        return HEADER

    @property
    def token_rows(self) -> int:
        return self.tokens + self.chunk

    @property
    def positions(self) -> int:
        return self.token_rows + self.chunk

    @property
    def outputs(self) -> int:
        return self.positions + self.chunk

    @property
    def decode(self) -> int:
        """Tokens whose attention is not made in tiles."""
        return self.outputs + self.chunk

    @property
    def parts(self) -> int:
        """First token and number of tokens of each row of the run, those in tiles first."""
        return self.decode + self.chunk

    @property
    def units_in(self) -> int:
        """(fixed group, row), as `Batch.units_in`."""
        return self.parts + 2 * self.rows

    @property
    def units_out(self) -> int:
        return self.units_in + self.fixed * self.rows

    @property
    def chosen(self) -> int:
        """Where the device puts the ids that it chooses, one for each token of a greedy run."""
        return self.units_out + self.fixed * self.rows

    @property
    def tables(self) -> int:
        return self.chosen + self.rows

    @property
    def words(self) -> int:
        return self.tables + self.paged * self.rows * self.table_width

    def table(self, number: int, row: int = 0) -> int:
        """The table of a row in the paged group of that number."""
        return self.tables + (number * self.rows + row) * self.table_width

    def encode(self, batch: Batch, outputs: int, first: int) -> np.ndarray:
        """int32 (tables,): all but the tables. `outputs` of the batch from `first` on get logits in this pass."""
        words = np.zeros(self.tables, np.int32)
        count, parts = len(batch.tokens), batch.parts
        long = [part for part in parts if part[2] >= PREFILL_TOKENS]
        short = [part for part in parts if part[2] < PREFILL_TOKENS]
        decode = np.concatenate([np.arange(at, at + tokens) for _, at, tokens in short] or [np.empty(0, np.int64)])
        words[:6] = count, outputs, first, len(decode), len(parts), len(long)
        arrays = (batch.tokens, batch.rows, batch.positions, batch.outputs, decode)
        for start, values in zip((self.tokens, self.token_rows, self.positions, self.outputs, self.decode), arrays, strict=True):
            words[start : start + len(values)] = values
        ordered = [word for _, *both in (*long, *short) for word in both]
        words[self.parts : self.parts + len(ordered)] = ordered
        if batch.units_in is not None and batch.units_out is not None:
            words[self.units_in : self.units_out] = batch.units_in.reshape(-1)
            words[self.units_out : self.chosen] = batch.units_out.reshape(-1)
        return words
