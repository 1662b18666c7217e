"""Keys and values of a slot on WebGPU: written out and read back, there or on the CPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lacewing.backends.base import KeepsSlots, StepLimits
from lacewing.backends.cpu import CpuBackend
from lacewing.errors import OptionError
from tests.backends.cpu.single_ops import CHUNK, one_batch
from tests.backends.webgpu.lowering.test_attention import attention_case
from tests.backends.webgpu.single_ops import FLOATS, backend, run_step


@pytest.mark.parametrize("shape", [(2, 1, 16, 16), (2, 2, 20, 12)], ids=str)
@pytest.mark.parametrize("half", [True, False])
def test_a_slot_goes_on_elsewhere(shape: tuple[int, int, int, int], half: bool) -> None:
    """In another slot of a step with another context, on this backend and on the CPU's."""
    case = replace(attention_case(30, *shape), half=half)
    one: Any = case.step(backend(FLOATS), 33)  # type: ignore[arg-type]
    other: Any = case.step(backend(FLOATS), 47, 3)  # type: ignore[arg-type]
    limits = StepLimits(40, CHUNK)
    cpu: Any = CpuBackend(1).compile(case.program, case.all_weights(case.program.vocab_size), limits)
    try:
        assert isinstance(one, KeepsSlots)
        run_step(one, one_batch(25))
        expected = run_step(one, one_batch(5, 25), 25)
        data = one.read_slot(0, 25)
        assert data.nbytes == 25 * case.program.kv_bytes_per_token
        other.write_slot(2, 25, data)
        assert np.array_equal(run_step(other, [([2] * 5, list(range(25, 30)))], 25), expected)
        assert np.array_equal(other.read_slot(2, 25), data)
        assert not other.read_slot(1, 40).any()
        cpu.write_slot(0, 25, data)
        np.testing.assert_allclose(run_step(cpu, one_batch(5, 25), 25), expected, rtol=1e-3, atol=1e-4)
        assert np.array_equal(cpu.read_slot(0, 25), data)
        assert one.read_slot(0, 0).size == 0
        with pytest.raises(OptionError, match="take"):
            other.write_slot(0, 24, data)
        with pytest.raises(OptionError, match="do not fit"):
            one.read_slot(0, 34)
        with pytest.raises(OptionError, match="out of range"):
            one.read_slot(1, 1)
    finally:
        for step in (one, other, cpu):
            step.close()
    with pytest.raises(OptionError, match="closed"):
        one.read_slot(0, 1)


def test_latent_keys_alone_are_kept() -> None:
    case = attention_case(10, 2, 1, 40, 32, latent=True)
    step: Any = case.step(backend(FLOATS), 12)  # type: ignore[arg-type]
    try:
        run_step(step, one_batch(10))
        data = step.read_slot(0, 10)
        keys = case.x[:, 80:].astype(np.float16)
        assert np.array_equal(data.view(np.float16).reshape(10, 40), keys)
    finally:
        step.close()
