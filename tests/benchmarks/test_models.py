"""The synthetic model is a good GGUF file with the weights that it claims."""

import gguf
import numpy as np
import pytest

from benchmarks import models
from lacewing.formats import open_checkpoint
from lacewing.models import open_model
from tests.checkpoints import tiny


def test_the_large_geometry_is_a_1b_model():
    tensors = models.Geometry().tensors(49152)
    assert sum(int(np.prod(shape)) for shape, _ in tensors.values()) == pytest.approx(1.17e9, rel=0.01)


@pytest.mark.parametrize("kind", [models.Q4_K, models.Q6_K])
def test_random_blocks_keep_a_vector_in_scale(kind):
    blocks = models.random_blocks(np.random.Generator(np.random.PCG64(1)), (64, 512), kind)
    values = gguf.dequantize(blocks, kind)
    assert values.shape == (64, 512)
    assert np.sqrt(np.square(values).sum(1)).mean() == pytest.approx(1, rel=0.05) and abs(values.mean()) < 4e-3


def test_a_random_file_opens(tmp_path):
    source, path = tiny("llama-wide", "gguf", tmp_path, "Q4_0"), tmp_path / "random" / "model.gguf"
    geometry = models.Geometry(blocks=2, width=256, heads=4, key_heads=2, feed_forward=512, context=64)
    models.write_random(path, source, geometry)
    spec = open_model(open_checkpoint(path), None)
    assert spec.program.layers and spec.config.layers == 2 and spec.tensors["output.weight"].quant.name == "Q6_K"
    assert not path.with_name("model.gguf.part").exists()
