"""A GPU that holds some experts while the others are streamed: right against the CPU, before and after they are exchanged."""

from __future__ import annotations

import numpy as np
import pytest

from lacewing.errors import BackendError, ModelFormatError, OutOfMemoryError
from lacewing.offload import rebalance
from lacewing.offload.plan import OffloadLevel
from tests.backends.webgpu.single_ops import CODES, FLOATS, backend
from tests.checkpoints import tiny
from tests.models.running import open_step, run
from tests.offload.splits import IDS, mixed_run
from tests.offload.test_streamed import LEVELS, opened, shut


def answer(step, whole, steps=24):
    """Single tokens, three in turn, each compared with the reference."""
    for position in range(steps):
        token = [int(IDS[position % 3])]
        np.testing.assert_allclose(run(step, token, position), run(whole, token, position), rtol=0, atol=1e-4)


@pytest.mark.parametrize("level", LEVELS, ids=["two", "three", "none"])
@pytest.mark.parametrize("name", ["qwen3moe", "gpt-oss"])
def test_streamed_is_lazy(name, level, tmp_path):
    """Bit for bit, while the same experts are on the GPU."""
    path, gpu = tiny(name, "gguf", tmp_path), backend(FLOATS)
    _, whole = open_step(path, 32)
    before = gpu.device.allocated
    lazy, streamed = opened(path, gpu, level, residency="lazy"), opened(path, gpu, level, slots=0)
    found = mixed_run(streamed[0])
    np.testing.assert_array_equal(found, mixed_run(lazy[0]))
    np.testing.assert_allclose(found, run(whole, IDS), rtol=0, atol=1e-4)
    assert streamed[1].experts.statistics.misses
    shut(lazy, streamed)
    assert gpu.device.allocated == before
    whole.close()


@pytest.mark.parametrize(("name", "format"), [("qwen3moe", "gguf"), ("gpt-oss", "gguf"), ("llama4", "huggingface")])
def test_exchanges_between_runs(name, format, tmp_path, monkeypatch):
    monkeypatch.setattr(rebalance, "EVERY", 2)
    path, gpu = tiny(name, format, tmp_path), backend(FLOATS)
    (step, store), (_, whole) = opened(path, gpu), open_step(path, 32)
    first, allocated = [layer.places.copy() for layer in step._rebalancer.manager.tier.layers], gpu.device.allocated
    answer(step, whole)
    use, layers = store.experts.statistics, step._rebalancer.manager.tier.layers
    assert use.uploaded and use.elsewhere and use.hits
    assert any(not np.array_equal(before, layer.places) for before, layer in zip(first, layers, strict=True))
    np.testing.assert_allclose(mixed_run(step), run(whole, IDS), rtol=0, atol=1e-4)
    assert gpu.device.allocated == allocated
    shut((step, store))
    whole.close()


@pytest.mark.parametrize("quant", ["Q4_0", "Q8_0", "MXFP4"])
def test_an_expert_from_a_slot_is_bitwise_one_from_the_file(quant, tmp_path):
    """What was brought from RAM to a place is what another model has there from the beginning."""
    path, gpu = tiny("olmoe", "gguf", tmp_path, quant=quant), backend(CODES)
    level, seen = OffloadLevel(shared=99, resident=2), list[np.ndarray]()
    streamed, lazy = opened(path, gpu, level, slots=8), opened(path, gpu, level, residency="lazy")
    for step, _ in (streamed, lazy):
        run(step, IDS)
        layers = step._rebalancer.manager.tier.layers
        seen = seen or [np.where(layer.below.in_ram, np.arange(layer.experts), 0) for layer in layers]
        for layer, uses in zip(layers, seen, strict=True):
            layer.usage.counts[:, 0], layer.usage.frequency[:] = 0, 100.0 * uses
        step.rebalance()
    places = [[layer.places.tolist() for layer in step._rebalancer.manager.tier.layers] for step, _ in (streamed, lazy)]
    assert places[0] == places[1] and streamed[1].experts.statistics.uploaded
    np.testing.assert_array_equal(run(streamed[0], IDS), run(lazy[0], IDS))
    shut(streamed, lazy)


def test_memory_that_ends_or_a_device_that_is_lost(tmp_path, monkeypatch):
    """Without memory nothing is exchanged, which is told; what was on its way when the device failed is the CPU's."""
    monkeypatch.setattr(rebalance, "EVERY", 1)
    path, gpu = tiny("qwen3moe", "gguf", tmp_path), backend(FLOATS)
    (step, store), (_, whole) = opened(path, gpu), open_step(path, 32)
    with monkeypatch.context() as patch:

        def full(size, label, usage=None):
            raise OutOfMemoryError("the GPU has no memory left")

        patch.setattr(gpu.device, "buffer", full)
        answer(step, whole, 8)
    assert "no memory left" in str(step.cache_statistics) and not store.experts.statistics.uploaded
    with monkeypatch.context() as patch:

        def lost(uploader, *arguments):
            raise BackendError("the GPU was lost")

        patch.setattr("lacewing.backends.webgpu.weights.matrices.Uploader.refill", lost)
        with pytest.raises(BackendError, match="lost"):
            answer(step, whole, 8)
    layers = step._rebalancer.manager.tier.layers
    assert any(layer.resident.sum() < layer.slots for layer in layers)
    answer(step, whole)
    assert all(layer.resident.sum() == layer.slots for layer in layers) and not step.cache_statistics.problem
    shut((step, store))
    whole.close()


def test_a_disk_that_fails_fails_that_run_alone(tmp_path, monkeypatch):
    path, gpu = tiny("qwen3moe", "gguf", tmp_path), backend(FLOATS)
    (step, store), (_, whole) = opened(path, gpu, slots=0), open_step(path, 32)
    with monkeypatch.context() as patch:

        def failing(descriptor, regions, offset):
            raise OSError(5, "Input/output error")

        patch.setattr("lacewing.weights.experts.reading.os.preadv", failing)
        with pytest.raises(ModelFormatError, match="Input/output error"):
            run(step, IDS)
    np.testing.assert_allclose(mixed_run(step), run(whole, IDS), rtol=0, atol=1e-4)
    shut((step, store))
    whole.close()
