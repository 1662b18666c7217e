"""The synthetic model is a good GGUF file with the weights that it claims."""

from dataclasses import replace

import gguf
import numpy as np
import pytest

from benchmarks import families, models
from lacewing.api import load
from lacewing.formats import open_checkpoint
from lacewing.models import open_model
from tests.checkpoints import tiny

SIZES = {models.SYNTHETIC: 1.17e9, models.MIXTURE: 1.37e9, "falcon-h1-0.5b": 0.554e9, "kimi-linear-tiny": 0.962e9,
         "gemma4-tiny": 1.108e9, "lfm2moe-tiny": 1.364e9}  # fmt: skip
SMALL = [
    families.FalconH1(blocks=2, width=256, heads=4, feed_forward=512, mamba_heads=4, context=64),
    families.KimiLinear(
        blocks=4, width=256, heads=2, rank=256, feed_forward=512, experts=6, active=2, expert_width=256, context=64
    ),
    families.Gemma4(
        blocks=4, shared=2, width=256, heads=2, head_width=256, local_head_width=128, feed_forward=256, window=8, period=2
    ),
    families.Lfm2Moe(
        blocks=4, attending=(1, 3), width=256, heads=4, key_heads=2, feed_forward=512, experts=6, active=2, expert_width=256
    ),
]


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_the_sizes_of_the_large_geometries(name, size):
    tensors = models.GEOMETRIES[name].tensors(49152)
    assert sum(int(np.prod(shape)) for shape, _ in tensors.values()) == pytest.approx(size, rel=0.01)


@pytest.mark.parametrize("kind", [models.Q4_K, models.Q5_0, models.Q6_K])
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


@pytest.mark.parametrize("geometry", SMALL, ids=lambda geometry: geometry.architecture)
def test_a_file_of_a_newer_architecture_opens(tmp_path, geometry):
    """Every tensor is read: by the program, by the config (RoPE's factors), or as a part of a stack (Kimi's convolutions)."""
    path = tmp_path / "model.gguf"
    models.write_random(path, tiny("llama-wide", "gguf", tmp_path, "Q4_0"), geometry)
    checkpoint = open_checkpoint(path)
    spec = open_model(checkpoint, None)
    assert spec.config.layers == geometry.blocks
    unused = set(checkpoint.tensors) - {tensor.name for tensor in spec.tensors.values()} - {"rope_freqs.weight"}
    assert [name for name in unused if ".ssm_conv1d_" not in name] == []
    with load(path, backend="reference", context=16) as model:
        logits = model.logits([1, 2, 3])
        assert np.isfinite(logits).all() and logits.std() > 0.1


def test_the_path_of_a_model_that_is_fetched_and_of_one_that_is_made(tmp_path, monkeypatch):
    source = tiny("llama-wide", "gguf", tmp_path, "Q4_0")
    monkeypatch.setattr(models, "fetched", {"smollm2": source}.__getitem__)
    monkeypatch.setattr(models, "cache_dir", lambda: tmp_path)
    geometry = models.Geometry(blocks=1, width=256, heads=4, key_heads=2, feed_forward=512, context=64)
    monkeypatch.setitem(models.GEOMETRIES, models.SYNTHETIC, geometry)
    assert models.path_of("smollm2") == source
    made = models.path_of(models.SYNTHETIC)
    assert made == tmp_path / "benchmarks" / "llama-1b-q4_k.gguf" and made.exists()
