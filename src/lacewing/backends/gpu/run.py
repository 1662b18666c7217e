"""What the host knows of a run before it, on which the work of a device depends."""

from __future__ import annotations

from dataclasses import dataclass

from lacewing.backends.batch import Batch
from lacewing.backends.gpu.inputs import PREFILL_TOKENS


@dataclass(frozen=True)
class Run:
    """What the host knows of a run, and dispatches depend on. `outputs`: rows of logits of this pass.

    `prefill`: tokens of each row whose attention is made in tiles. `single`: every token is of another row. `kv_len`: keys that the
    other tokens may see, rounded up to a power of two, so that few plans exist; `reach`: the same of all tokens.
    """

    tokens: int
    outputs: int
    kv_len: int
    prefill: tuple[int, ...] = ()
    parts: int = 1
    single: bool = False
    reach: int = 0

    @staticmethod
    def of(batch: Batch, outputs: int) -> Run:
        parts = batch.parts
        if len(parts) == len(batch.tokens) == outputs:
            return Run.singly(outputs, int(batch.positions.max()))
        short = [first + count - 1 for _, first, count in parts if count < PREFILL_TOKENS]
        kv_len = 1 << int(batch.positions[short].max()).bit_length() if short else 1
        prefill = tuple(count for _, _, count in parts if count >= PREFILL_TOKENS)
        reach = 1 << int(batch.positions.max()).bit_length()
        return Run(len(batch.tokens), outputs, kv_len, prefill, len(parts), len(parts) == len(batch.tokens), reach)

    @staticmethod
    def singly(rows: int, position: int) -> Run:
        """One token of each of so many rows, the furthest at a position, with its logits."""
        reach = 1 << position.bit_length()
        return Run(rows, rows, reach, (), rows, True, reach)

    @property
    def decode(self) -> int:
        """Tokens whose attention is not made in tiles."""
        return self.tokens - sum(self.prefill)
