"""Runs a checkpoint on a backend without the layers above, for the tests of models and backends."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lacewing.backends.base import Backend
from lacewing.backends.batch import StepLimits
from lacewing.backends.reference.backend import ReferenceBackend
from lacewing.backends.step import Step
from lacewing.formats import open_checkpoint
from lacewing.formats.checkpoint import TensorInfo
from lacewing.formats.read import mapped
from lacewing.models import ModelSpec, open_model
from lacewing.quants.base import Quant
from tests import paged


@dataclass(frozen=True)
class MappedWeight:
    """The least that a backend needs of a weight."""

    name: str
    shape: tuple[int, ...]
    quant: Quant
    data: np.ndarray
    pieces: tuple[np.ndarray, ...] = ()
    scales: MappedWeight | None = None
    scale_block: tuple[int, int] = (1, 1)
    tiled: np.ndarray | None = None
    slots: None = None
    row_table: None = None

    @property
    def parts(self) -> list[np.ndarray]:
        return list(self.pieces) or [self.data]


def mapped_weights(tensors: dict[str, TensorInfo]) -> dict[str, MappedWeight]:
    found = {name: mapped_weight(info) for name, info in tensors.items()}
    for name, info in tensors.items():
        if info.scales is not None:
            found[name] = replace(found[name], scales=found[info.scales], scale_block=info.scale_block)
    return found


def mapped_weight(info: TensorInfo) -> MappedWeight:
    """Without its factors."""
    pieces = tuple(mapped(part) for part in info.ranges)
    data = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    return MappedWeight(info.name, info.shape, info.quant, data, pieces)


def open_step(
    path: Path, context: int | None = None, backend: Backend | None = None, rows: int = 1, chunk: int = 512
) -> tuple[ModelSpec, Step]:
    spec = open_model(open_checkpoint(path), context)
    limits = StepLimits(spec.context, chunk, rows)
    step = (backend or ReferenceBackend()).compile(spec.program, mapped_weights(dict(spec.tensors)), limits)
    return spec, paged.with_pages(step)


def run(step: Step, ids: list[int], start: int = 0, row: int = 0) -> np.ndarray:
    """Logits (T, V) of all of `ids`, at positions from `start` on."""
    return paged.run_row(step, ids, start, row).copy()


def greedy(step: Step, ids: list[int], count: int) -> list[int]:
    """`count` likeliest ids after `ids`, one step each."""
    found = [int(run(step, ids)[-1].argmax())]
    while len(found) < count:
        found.append(int(run(step, found[-1:], len(ids) + len(found) - 1)[0].argmax()))
    return found
