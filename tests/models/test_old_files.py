"""Files that other tools made, and older ones: names of their own, and metadata that say less."""

import re

import numpy as np
import pytest

from lacewing.api import load
from lacewing.errors import LacewingError, ModelFormatError
from lacewing.formats import open_checkpoint
from lacewing.models import open_model
from tests import mixtures
from tests.checkpoint_files import metadata, write_gguf_tensors
from tests.checkpoints import config_of, prompt_of, tiny, weights_of
from tests.tolerance import SAME, assert_equal_up_to_rounding


def logits(path, backend, name):
    with load(path, backend=backend, context=64) as model:
        return model.logits(prompt_of(name))


def parts_of(name):
    """Architecture, keys and tensors of a tiny GGUF file."""
    config = config_of(name)
    keys = metadata(config) | mixtures.metadata(config, False)
    return mixtures.ARCHITECTURES[config["model_type"]], keys, mixtures.tensors(config, weights_of(config), False)


def of_ollama(tensors):
    """gpt-oss as its converter names and joins the weights."""
    found = {}
    for name, value in tensors.items():
        name = name.replace("attn_output", "attn_out").replace("post_attention_norm", "ffn_norm")
        if re.search(r"attn_[kv]\.|_up_exps", name):
            continue
        if "attn_q." in name:
            value = np.concatenate([tensors[name.replace("attn_q", f"attn_{part}")] for part in "qkv"])
            name = name.replace("attn_q", "attn_qkv")
        if "ffn_gate_exps" in name:
            both = np.stack([value, tensors[name.replace("gate", "up")]], axis=2)  # row by row: gate, up
            name, value = name.replace("gate", "gate_up"), both.reshape(len(value), -1, *value.shape[2:])
        found[name.removesuffix(".weight") if "sinks" in name else name] = value
    return found


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_gpt_oss_by_ollama(backend, joined, tmp_path):
    _, keys, tensors = parts_of("gpt-oss")
    keys = {name: value for name, value in keys.items() if name not in ("rope.scaling.type", "vocab_size")}
    path = write_gguf_tensors(tmp_path / "blob", "gptoss", keys, of_ollama(tensors) if joined else tensors, "F32")
    plain = logits(tiny("gpt-oss", "gguf", tmp_path), backend, "gpt-oss")
    assert_equal_up_to_rounding(logits(path, backend, "gpt-oss"), plain)
    assert open_model(open_checkpoint(path)).architecture == "gptoss"


def test_gpt_oss_of_the_first_ollama_is_refused(tmp_path):
    """Its MXFP4 has a number that the format took away from another type, and another order of nibbles."""
    path = tiny("gpt-oss", "gguf", tmp_path)
    data = bytearray(path.read_bytes())
    at = data.index(b"blk.0.ffn_up_exps.weight") + len(b"blk.0.ffn_up_exps.weight") + 4 + 3 * 8
    data[at : at + 4] = (4).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(ModelFormatError, match=r"tensor type 4 was removed .* Ollama made"):
        open_checkpoint(path)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_mixtral_with_a_tensor_for_each_expert(backend, tmp_path):
    """As llama.cpp wrote it until the spring of 2024, which it no longer reads."""
    architecture, keys, tensors = parts_of("mixtral")
    single = {}
    for name, value in tensors.items():
        stack = re.fullmatch(r"(blk\.\d+\.ffn_\w+)_exps\.weight", name)
        single |= {name: value} if stack is None else {f"{stack[1]}.{expert}.weight": each for expert, each in enumerate(value)}
    assert "blk.1.ffn_down.5.weight" in single
    path = write_gguf_tensors(tmp_path / "old.gguf", architecture, keys, single, "F32")
    SAME[backend](logits(path, backend, "mixtral"), logits(tiny("mixtral", "gguf", tmp_path), backend, "mixtral"))
    path = write_gguf_tensors(
        tmp_path / "odd.gguf", architecture, keys, single | {"blk.1.ffn_down.6.weight": single["blk.1.ffn_down.5.weight"]}, "F32"
    )
    with pytest.raises(LacewingError, match="has an expert 6; there should be 6"):
        open_model(open_checkpoint(path))
