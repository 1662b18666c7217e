"""The synthetic model is a good GGUF file with the weights that it claims."""

from dataclasses import replace

import gguf
import numpy as np
import pytest

from benchmarks import models
from lacewing.api import load
from lacewing.formats import open_checkpoint
from lacewing.models import open_model
from tests.checkpoints import tiny


@pytest.mark.parametrize(("name", "size"), [(models.SYNTHETIC, 1.17e9), (models.MIXTURE, 1.37e9)])
def test_the_sizes_of_the_large_geometries(name, size):
    tensors = models.GEOMETRIES[name].tensors(49152)
    assert sum(int(np.prod(shape)) for shape, _ in tensors.values()) == pytest.approx(size, rel=0.01)


@pytest.mark.parametrize("kind", [models.Q4_K, models.Q6_K])
def test_random_blocks_keep_a_vector_in_scale(kind):
    blocks = models.random_blocks(np.random.Generator(np.random.PCG64(1)), (64, 512), kind)
    values = gguf.dequantize(blocks, kind)
    assert values.shape == (64, 512)
    assert np.sqrt(np.square(values).sum(1)).mean() == pytest.approx(1, rel=0.05) and abs(values.mean()) < 4e-3


@pytest.mark.parametrize("experts", [0, 6])
def test_a_random_file_opens(tmp_path, experts):
    source, path = tiny("llama-wide", "gguf", tmp_path, "Q4_0"), tmp_path / "random" / "model.gguf"
    geometry = models.Geometry(blocks=2, width=256, heads=4, key_heads=2, feed_forward=512, context=64)
    if experts:
        geometry = replace(geometry, architecture="qwen3moe", experts=experts, active=2, expert_width=256)
    models.write_random(path, source, geometry)
    spec = open_model(open_checkpoint(path), None)
    assert spec.program.states and spec.config.layers == 2 and spec.tensors["output.weight"].quant.name == "Q6_K"
    assert not path.with_name("model.gguf.part").exists()
    assert (spec.config.mixture.experts if experts else 0) == experts
    if experts:
        with load(path, backend="reference", context=16) as model:
            assert model.logits([1, 2, 3]).std() > 0.1


def test_the_path_of_a_model_that_is_fetched_and_of_one_that_is_made(tmp_path, monkeypatch):
    source = tiny("llama-wide", "gguf", tmp_path, "Q4_0")
    monkeypatch.setattr(models, "fetched", {"smollm2": source}.__getitem__)
    monkeypatch.setattr(models, "cache_dir", lambda: tmp_path)
    geometry = models.Geometry(blocks=1, width=256, heads=4, key_heads=2, feed_forward=512, context=64)
    monkeypatch.setitem(models.GEOMETRIES, models.SYNTHETIC, geometry)
    assert models.path_of("smollm2") == source
    made = models.path_of(models.SYNTHETIC)
    assert made == tmp_path / "benchmarks" / "llama-1b-q4_k.gguf" and made.exists()
