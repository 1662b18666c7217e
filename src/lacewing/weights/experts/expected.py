"""What to expect of streaming before anything is loaded: how fast the disk reads experts, and how many of them are in RAM."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lacewing.formats.checkpoint import ByteRange, Identity
from lacewing.weights.experts.reading import READERS, ExpertReader
from lacewing.weights.experts.source import LayerSlots, SlotCount, padded, ranges_of_experts
from lacewing.weights.memory import allocate

PROBE_SECONDS = 0.5
# Hit rates of `policy` for shares of the experts in RAM: the mean of five texts by OLMoE, Kimi-Linear, Qwen3, Gemma 4 and gpt-oss,
# whose routing is public (sqliteai/waste and Helldez/BigMoeOnEdge), without a warm start.
_SHARES = (0.0, 0.125, 0.25, 0.5, 1.0)
_OF_TEXTS = (0.0, 0.594, 0.739, 0.847, 1.0)


@dataclass(frozen=True)
class Expected:
    """Hit rates, bytes that a token reads from the disk, and tokens/s that the disk allows however fast all else is; None: any.

    "even": if every expert is as likely as any other, which is the worst case; "texts": as for usual texts. `disk_rate` is in
    bytes/s, in reads of `read_bytes`.
    """

    disk_rate: float
    read_bytes: int
    hits: Mapping[str, float]
    token_bytes: Mapping[str, int]
    most_tokens: Mapping[str, float | None]


def expected(layers: Sequence[LayerSlots], slots: SlotCount, disk_rate: float) -> Expected:
    """Of a plan for streaming."""
    share = sum(min(1.0, slots.layer / layer.experts) * layer.stack_bytes for layer in layers)
    share /= sum(layer.stack_bytes for layer in layers)
    chosen = sum(layer.stack_bytes * layer.active // layer.experts for layer in layers)
    hits = {"even": share, "texts": max(share, float(np.interp(share, _SHARES, _OF_TEXTS)))}
    missed = {name: round((1 - hit) * chosen) for name, hit in hits.items()}
    most = {name: disk_rate / nbytes if nbytes else None for name, nbytes in missed.items()}
    largest = max(layer.stack_bytes // layer.experts // len(layer.stacks) for layer in layers)
    return Expected(disk_rate, largest, hits, missed, most)


def disk_rate(
    stacks: Sequence[tuple[Sequence[ByteRange], int]], files: Mapping[Path, Identity], seconds: float = PROBE_SECONDS
) -> float | None:
    """Bytes/s of reads of experts here and there, as streaming makes them, for so long; None: there is nothing to read.

    `stacks`: where weights are, each with its number of experts. Raises ModelFormatError for a file that cannot be read.
    """
    parts = [part for ranges, experts in stacks for part in ranges_of_experts(ranges, experts) if part.nbytes]
    random.Random(0).shuffle(parts)
    if not parts:
        return None
    size = padded(max(part.nbytes for part in parts))
    memory, reader = allocate(2 * READERS * size, "a probe of the disk"), ExpertReader(files)
    under_way: deque[tuple[Future[None], int]] = deque()
    began, done = time.perf_counter(), 0
    try:
        for number, part in enumerate(parts):
            at = number % (2 * READERS) * size
            under_way.append((reader.submit(part, memory[at : at + size]), part.nbytes))
            if len(under_way) == 2 * READERS:
                read, nbytes = under_way.popleft()
                read.result()
                done += nbytes
            if time.perf_counter() - began > seconds:
                break
        for read, nbytes in under_way:
            read.result()
            done += nbytes
    finally:
        reader.close()
    return done / (time.perf_counter() - began)
