"""The config.json files of models people really run are accepted, and mean what they should."""

import json
from pathlib import Path

import pytest

from lacewing.formats.checkpoint import Checkpoint, TensorInfo
from lacewing.models.config import check_config
from lacewing.models.opening import find_architecture
from lacewing.models.readers.huggingface import read_huggingface, text_config
from lacewing.quants import by_name

REAL = json.loads((Path(__file__).parents[2] / "data" / "real_configs.json").read_text(encoding="utf-8"))


def read(config):
    checkpoint = Checkpoint(Path("model"), "safetensors", {"config.json": config}, {})
    architecture = find_architecture(text_config(checkpoint)["model_type"], "model")
    found, notices = read_huggingface(
        checkpoint, architecture, {"token_embd.weight": TensorInfo("token_embd.weight", (1,), by_name("BF16"), ())}
    )
    assert notices == []
    check_config(found, "model")
    return found


def test_llama3():
    found = read(REAL["LLAMA3"])
    assert (found.heads, found.key_heads, found.head_width, found.feed_forward) == (32, 8, 128, 14336)
    assert (found.rope.kind, found.rope.factor, found.rope.original_context, found.rope.base) == ("llama3", 8, 8192, 500000)
    assert set(found.windows) == {None}
    assert not found.biases


def test_mistral():
    assert set(read(REAL["MISTRAL_V01"]).windows) == {4096}
    assert set(read(REAL["MISTRAL_V01"] | {"sliding_window": None, "head_dim": 128}).windows) == {None}


def test_qwens():
    assert set(read(REAL["QWEN25"]).windows) == {None}
    assert read(REAL["QWEN25"]).biases == {"attn_q", "attn_k", "attn_v"}
    assert read(REAL["QWEN25"]).tied_output
    yarn = read(REAL["QWEN25"] | {"rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"}}).rope
    assert (yarn.kind, yarn.factor, yarn.original_context, yarn.magnitude) == ("yarn", 4.0, 32768, None)
    found = read(REAL["QWEN3"])
    assert (found.head_width, found.qk_norm, found.biases) == (128, True, frozenset())


def test_phis():
    found = read(REAL["PHI4_MINI"])
    assert (found.rope.width, found.rope.kind, found.rope.original_context, found.rope.factor) == (96, "longrope", 4096, 32)
    assert found.fused_qkv
    assert found.fused_gate_up
    assert set(read(REAL["PHI3_4K"]).windows) == {2047}
    assert read(REAL["PHI3_4K"]).rope.kind == "none"
    older = {"long_factor": [2.0] * 48, "short_factor": [1.0] * 48, "type": "su"}
    assert read(REAL["PHI3_4K"] | {"rope_scaling": older, "max_position_embeddings": 131072}).rope.kind == "longrope"


def test_gemmas():
    found = read(REAL["GEMMA"])
    assert (found.activation, found.tied_output, found.norm_offset, found.embedding_scale) == ("gelu_tanh", True, 1.0, 45.25)
    found = read(REAL["GEMMA2"])
    assert (found.attention_scale, found.attention_softcap, found.final_softcap) == (144**-0.5, 50.0, 30.0)
    assert found.windows[:3] == (4096, None, 4096)
    found = read(REAL["GEMMA3_270M"])
    assert [layer for layer, window in enumerate(found.windows) if window is None] == [5, 11, 17]
    found = read(REAL["GEMMA3_4B"])
    assert (found.heads, found.key_heads, found.head_width, found.vocab_size) == (8, 4, 256, 262208)
    assert (found.rope.kind, found.rope.factor, found.rope.base) == ("linear", 8.0, 1e6)
    assert (found.local_rope.kind, found.local_rope.base) == ("none", 1e4)


def test_lfm2():
    """F is not what the config names; which layers attend stands in one of two keys."""
    older, newer = read(REAL["LFM2_1B"]), read(REAL["LFM25_350M"])
    assert (older.feed_forward, newer.feed_forward) == (8192, 4608)
    assert (older.head_width, older.qk_norm, older.tied_output, older.rope.base, older.eps) == (64, True, True, 1e6, 1e-5)
    assert older.short_convolution == newer.short_convolution
    assert older.short_convolution.kernel == 3
    assert [layer for layer, found in enumerate(older.short_convolution.layers) if not found] == [2, 5, 8, 10, 12, 14]


@pytest.mark.parametrize(
    "model_type", ["llama", "mistral", "qwen2", "qwen3", "phi3", "gemma", "gemma2", "gemma3", "gemma3_text", "lfm2"]
)
def test_every_promised_model_type_has_an_architecture(model_type):
    assert find_architecture(model_type, "model").defaults[model_type]
