"""What a block format is: a name, sizes, and how NumPy turns its bytes into numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Quant:
    """A block format: `block_elements` consecutive values of a row stand in `block_bytes` bytes.

    `dequantise` takes uint8 blocks (N, block_bytes) and gives float32 (N, block_elements).
    """

    name: str
    ggml_id: int | None  # None: exists in safetensors only
    block_elements: int
    block_bytes: int
    dequantise_blocks: Callable[[np.ndarray], np.ndarray]

    def row_bytes(self, elements: int) -> int:
        """Bytes of a row of `elements` values; the row must be whole blocks."""
        return elements // self.block_elements * self.block_bytes

    def dequantise(self, data: np.ndarray) -> np.ndarray:
        """uint8 (..., row_bytes) to float32 (..., elements)."""
        blocks = np.ascontiguousarray(data).reshape(-1, self.block_bytes)
        with np.errstate(all="ignore"):  # a scale may be infinite or NaN; that is the checkpoint's business
            values = self.dequantise_blocks(blocks)
        return values.reshape(*data.shape[:-1], data.shape[-1] // self.block_bytes * self.block_elements)

    def __repr__(self) -> str:
        return self.name
