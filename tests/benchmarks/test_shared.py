"""Mixtures that two devices share are measured with tokens that do not repeat themselves."""

import numpy as np
import pytest
from gguf import GGUFReader

from benchmarks import shared
from lacewing.backends.reference.backend import ReferenceBackend
from lacewing.engine.engine import Engine
from lacewing.errors import OutOfMemoryError
from lacewing.offload.plan import OffloadLevel
from tests.checkpoints import tiny
from tests.offload.test_cache import open_shared


def routers(path):
    return [np.array(tensor.data) for tensor in GGUFReader(path).tensors if tensor.name.endswith("ffn_gate_inp.weight")]


class TakesNone(ReferenceBackend):
    """Has no memory for other experts."""

    def compile(self, *arguments):
        step = super().compile(*arguments)
        step.put_experts = full
        return step


def full(swaps, begin):
    raise OutOfMemoryError("the device is full")


def test_measured(tmp_path):
    backends = [TakesNone(), ReferenceBackend()]
    step = open_shared(tiny("qwen3moe", "gguf", tmp_path), backends, OffloadLevel(shared=99, resident=4))
    found = shared.measure(Engine(step, 320, 32), 12, 3, 2)
    assert len(found) == 2 and all(prompt > 0 and token > 0 and 0 < share < 1 for prompt, token, share in found)
    assert "at first" in shared.shown("4MiB", found)
    assert shared.shown("cpu", [(3.0, 2.0, None), (4.0, 1.0, None)]) == "cpu: prompt 3.5, generate 1.5 tokens/s"
    step.close()


def test_skewed_routers(tmp_path):
    path = tiny("qwen3moe", "gguf", tmp_path)
    copy = shared.skewed(path, 0.5)
    for before, after in zip(routers(path), routers(copy), strict=True):
        ratios = np.linalg.norm(after, axis=1) / np.linalg.norm(before, axis=1)
        assert ratios.max() / ratios.min() > 1.5
        same = (before * after).sum(1) / np.linalg.norm(before, axis=1) / np.linalg.norm(after, axis=1)
        assert same == pytest.approx(np.ones(len(before)), abs=1e-5)
