"""Files of random weights: no holes, and numbers that a model can compute with."""

import numpy as np

import lacewing
from benchmarks import real_bytes
from lacewing.formats import open_checkpoint
from tests.checkpoints import tiny


def test_all_weights_are_written_and_the_logits_are_finite(tmp_path):
    wide = {"hidden_size": 256, "moe_intermediate_size": 256, "num_attention_heads": 8, "num_key_value_heads": 8}
    for name, quant, changes in (("gpt-oss", "MXFP4", {}), ("deepseek3", "Q8_0", {}), ("qwen3moe", "Q4_K", wide)):
        path = tiny(name, "gguf", tmp_path, quant, **changes)
        before = {info.name: info.ranges for info in open_checkpoint(path).tensors.values()}
        assert real_bytes.fill(path) == sum(part.nbytes for ranges in before.values() for part in ranges)
        with lacewing.load(path, backend="cpu", residency="lazy", threads=1, context=64) as model:
            logits = model.logits([1, 2, 3])
            stacks = [each for each in model.weights.values() if each.name.endswith("_exps.weight")]
            spreads = [float(np.std(each.dequantise())) * each.shape[-1] ** 0.5 for each in stacks]
        assert np.isfinite(logits).all() and np.std(logits) > 0.1
        assert stacks and all(0.5 < spread < 2 for spread in spreads), spreads


def test_equal_pages_are_rare(tmp_path, monkeypatch):
    monkeypatch.setattr(real_bytes, "POOL", 2**18)
    monkeypatch.setattr(real_bytes, "CHUNK", 2**16)
    path = tiny("gpt-oss", "gguf", tmp_path, "MXFP4", hidden_size=512, intermediate_size=512, num_local_experts=8)
    real_bytes.fill(path)
    stacks = [part for info in open_checkpoint(path).tensors.values() if info.quant.name == "MXFP4" for part in info.ranges]
    data, pages = path.read_bytes(), set()
    for part in stacks:
        pages |= {data[at : at + 4096] for at in range(-(-part.offset // 4096) * 4096, part.offset + part.nbytes - 4095, 4096)}
    whole = sum((part.offset + part.nbytes) // 4096 - -(-part.offset // 4096) for part in stacks)
    assert sum(part.nbytes for part in stacks) > 8 * real_bytes.POOL and len(pages) > 0.9 * whole
