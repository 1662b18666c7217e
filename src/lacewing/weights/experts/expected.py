"""What to expect of streaming before anything is loaded: how many chosen experts are in RAM, and how fast the others come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lacewing.weights.experts.source import LayerSlots, SlotCount

# Hit rates of `policy` for shares of the experts in RAM: the mean of five texts by OLMoE, Kimi-Linear, Qwen3, Gemma 4 and gpt-oss,
# whose routing is public (sqliteai/waste and Helldez/BigMoeOnEdge), without a warm start.
_SHARES = (0.0, 0.125, 0.25, 0.5, 1.0)
_OF_TEXTS = (0.0, 0.594, 0.739, 0.847, 1.0)


@dataclass(frozen=True)
class Expected:
    """Hit rates, bytes that a token reads from the disk, and tokens/s that the disk allows however fast all else is; None: any.

    "even": if every expert is as likely as any other, which is the worst case; "texts": as for usual texts. `disk_rate` is in
    bytes/s.
    """

    disk_rate: float
    hits: Mapping[str, float]
    token_bytes: Mapping[str, int]
    most_tokens: Mapping[str, float | None]


def expected(layers: Sequence[LayerSlots], slots: SlotCount, disk_rate: float) -> Expected:
    """Of a plan for streaming."""
    share, chosen = _share(layers, slots), _chosen_bytes(layers)
    hits = {"even": share, "texts": max(share, float(np.interp(share, _SHARES, _OF_TEXTS)))}
    missed = {name: round((1 - hit) * chosen) for name, hit in hits.items()}
    most = {name: disk_rate / nbytes if nbytes else None for name, nbytes in missed.items()}
    return Expected(disk_rate, hits, missed, most)


def even_bytes(layers: Sequence[LayerSlots], slots: SlotCount) -> int:
    """That a token reads from the disk, on the average, if every expert is as likely as any other."""
    return round((1 - _share(layers, slots)) * _chosen_bytes(layers))


def _share(layers: Sequence[LayerSlots], slots: SlotCount) -> float:
    """Of the experts' bytes, those in RAM or on a GPU."""
    resident = sum(min(1.0, (slots.layer + layer.above) / layer.experts) * layer.stack_bytes for layer in layers)
    return resident / sum(layer.stack_bytes for layer in layers)


def _chosen_bytes(layers: Sequence[LayerSlots]) -> int:
    """Of the experts of one token."""
    return sum(layer.stack_bytes * layer.active // layer.experts for layer in layers)
