"""Runs a few ops on WebGPU and on the reference: `tests.backends.cpu.single_ops.Case` on the adapter of the tests."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from typing import Any
from unittest.mock import patch

import numpy as np

from lacewing.backends.step import Step
from lacewing.backends.webgpu.backend import WebGPUBackend
from lacewing.backends.webgpu.device.adapters import adapters
from lacewing.backends.webgpu.device.device import Device
from tests import paged
from tests.backends.cpu.single_ops import Batch, Case, nmse

VARIANTS = ("none", "subgroups", "dot", "subgroups,dot")
FLOATS, CODES = "subgroups", "subgroups,dot"  # activations as float32, as bytes
LIMIT = {"none": 1e-7, "subgroups": 1e-7, "dot": 5e-4, "subgroups,dot": 5e-4}  # NMSE against the reference


@cache
def adapter() -> Any:
    """The software adapter where there is one, so that tests are alike everywhere; else the first."""
    return min(adapters(), key=lambda each: each.kind != "software").gpu


@cache
def backend(variant: str = CODES) -> WebGPUBackend:
    """One device a variant for the whole session, with checked shaders: a pipeline is compiled once for all tests."""
    with patch.dict(os.environ, {"LACEWING_WEBGPU": variant}):
        return WebGPUBackend(Device(adapter(), checked=True))


def run_step(step: Step, batches: Sequence[Batch], first: int = 0) -> np.ndarray:
    """Logits (N, V) of all tokens: row `first + i` of the case's `x` is the i-th token of all batches."""
    found, done = [], first
    for rows, positions in batches:
        count = len(positions)
        found.append(paged.run(step, np.arange(done, done + count), rows, positions, np.arange(count)).copy())
        done += count
    return np.concatenate(found)


def run(case: Case, batches: Sequence[Batch], variant: str = CODES, context: int = 64, rows: int = 1) -> np.ndarray:
    """The case's view of all tokens, float32 (N, out width), as WebGPU computes it."""
    step = case.step(backend(variant), context, rows)  # type: ignore[arg-type]  # any backend will do
    try:
        return run_step(step, batches)[:, : case.out.width]
    finally:
        step.close()


def expected(case: Case, batches: Sequence[Batch], context: int = 64, rows: int = 1) -> np.ndarray:
    """The same from the reference backend."""
    return case.run(batches, None, context, rows)


def error(case: Case, batches: Sequence[Batch], variant: str = CODES, context: int = 64, rows: int = 1) -> float:
    """NMSE of WebGPU against the reference."""
    return nmse(run(case, batches, variant, context, rows), expected(case, batches, context, rows))
