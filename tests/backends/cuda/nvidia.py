"""What tests on an NVIDIA GPU share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from lacewing.backends.cuda.backend import CudaBackend
from lacewing.backends.cuda.device.devices import gpus, shared
from lacewing.backends.step import Step
from tests import paged
from tests.backends.cpu.single_ops import Batch, Case, nmse


@cache
def backend() -> CudaBackend:
    """On the first GPU. Raises NoDeviceError where there is none."""
    return CudaBackend(shared(gpus()[0]))


def run_step(step: Step, batches: Sequence[Batch]) -> np.ndarray:
    """Logits (N, V) of all tokens: row i of the case's `x` is the i-th token of all batches."""
    found, done = [], 0
    for rows, positions in batches:
        count = len(positions)
        found.append(paged.run(step, np.arange(done, done + count), rows, positions, np.arange(count)).copy())
        done += count
    return np.concatenate(found)


def error(case: Case, batches: Sequence[Batch], context: int = 64, rows: int = 1) -> float:
    """NMSE of CUDA against the reference."""
    step = case.step(backend(), context, rows)  # type: ignore[arg-type]  # any backend will do
    try:
        found = run_step(step, batches)[:, : case.out.width]
    finally:
        step.close()
    return nmse(found, case.run(batches, None, context, rows))
