"""Devices with no more than WebGPU promises, and with subgroups of other sizes: all kernels, right results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from lacewing.backends.reference.backend import ReferenceBackend
from lacewing.backends.webgpu.backend import WebGPUBackend
from lacewing.backends.webgpu.device.device import MINIMUM, Device
from tests.backends.cpu.single_ops import nmse, one_batch
from tests.backends.webgpu.lowering.test_attention import attention_case
from tests.backends.webgpu.lowering.test_quants import products_case
from tests.backends.webgpu.single_ops import CODES, LIMIT, adapter, expected, run_step
from tests.checkpoints import CONTEXTS, prompt_of, tiny
from tests.models.running import open_step, run

# WebGPU's defaults, which no implementation may be below
LEAST = MINIMUM | {
    "max-buffer-size": 2**28, "max-bind-groups": 4, "max-bindings-per-bind-group": 1000, "max-compute-workgroup-size-y": 256,
    "max-compute-workgroup-size-z": 64,
}  # fmt: skip
ALL = "subgroups,dot,half"


class Small:
    """An adapter whose devices have the least limits."""

    def __init__(self, real: Any):
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def request_device_sync(self, **how: Any) -> Any:
        return self._real.request_device_sync(required_limits=LEAST, **how)


@cache
def small(variant: str) -> WebGPUBackend:
    with patch.dict(os.environ, {"LACEWING_WEBGPU": variant}):
        return WebGPUBackend(Device(Small(adapter()), checked=True))


def test_the_limits_are_the_least() -> None:
    device = small("none").device
    assert {name: device.limits[name] for name in LEAST} == LEAST
    assert device.most_threads == 256 and device.largest_buffer == 2**27


@pytest.mark.parametrize(
    ("name", "quant", "variant"),
    [("gemma2", None, "none"), ("gpt-oss", "MXFP4", "none"), ("deepseek3", None, ALL), ("llama-wide", "Q4_K", ALL),
     ("qwen3moe", "Q8_0", ALL), ("qwen3moe", "F16", ALL)],
)  # fmt: skip
def test_whole_models(name: str, quant: str | None, variant: str, tmp_path: Path) -> None:
    path, context = tiny(name, "gguf", tmp_path, *([quant] if quant else [])), CONTEXTS.get(name, 64)
    (_, step), (_, reference) = (
        open_step(path, context, each, chunk=32) for each in (small(variant), ReferenceBackend(exact=False))
    )
    ids = prompt_of(name, 32)
    wanted = run(reference, ids)
    singly = np.concatenate([run(step, [token], at) for at, token in enumerate(ids)])
    for found in (run(step, ids), singly):
        assert nmse(found, wanted) < (1e-3 if quant in ("Q4_K", "Q8_0") else 1e-5)
    step.close()


@pytest.mark.parametrize("variant", ["none", ALL])
def test_the_widest_heads(variant: str) -> None:
    """Of latent attention: 576 and 512 values; and 256, in splits."""
    for case, batches, context in (
        (attention_case(40, 8, 1, 576, 512, latent=True), [*one_batch(39), ([0], [39])], 64),
        (
            attention_case(301, 2, 1, 256, 256),
            [*(([0] * 60, list(range(s, s + 60))) for s in range(0, 300, 60)), ([0], [300])],
            301,
        ),
    ):
        step = case.step(small(variant), context)  # type: ignore[arg-type]
        assert nmse(run_step(step, batches)[:, : case.out.width], expected(case, batches, context)) < 1e-7
        step.close()


def test_products_of_quants() -> None:
    case = products_case(
        ("F16", "Q2_K", "Q3_K", "Q6_K", "Q8_0", "NVFP4", "F8_E4M3"), 33, 256, 12
    )  # the most planes, the most scales
    step = case.step(small(ALL), 64)  # type: ignore[arg-type]
    for tokens in (2, 12):
        found = run_step(step, one_batch(tokens))[:, : case.out.width]
        assert nmse(found, expected(case, one_batch(tokens))) < LIMIT[CODES]
    step.close()


@pytest.mark.parametrize(("lanes", "least"), [(4, 0), (16, 0), (8, 4), (16, 8)])
def test_subgroups_of_another_size(lanes: int, least: int) -> None:
    """Mesa's adapter takes the size from the width of vectors that it is told; this one has 8 by itself. `least`: a driver that
    may give a kernel as few; teams of so many threads are then parts of larger subgroups."""
    if adapter().info["adapter_type"] != "CPU":
        pytest.fail("this test needs Mesa's software adapter: apt-get install -y mesa-vulkan-drivers")
    variables = {"LP_NATIVE_VECTOR_WIDTH": str(32 * lanes), "LACEWING_WEBGPU": "", "LACEWING_WEBGPU_CHECKS": "1"}
    command = [sys.executable, "-m", "tests.backends.webgpu.lanes", str(least)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | variables)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found.pop("lanes"), found.pop("fixed")) == (least or lanes, not least)
    assert {name for name, error in found.items() if not error < LIMIT[CODES]} == set()
