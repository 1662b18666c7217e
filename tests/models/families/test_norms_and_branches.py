"""Granite, OLMo, GLM-4, SmolLM3, Cohere, Phi, StarCoder2, StableLM, Apertus: published sizes, configs, what is refused."""

import math
from pathlib import Path

import numpy as np
import pytest

from lacewing.api import load
from lacewing.errors import LacewingError
from lacewing.formats import open_checkpoint
from lacewing.formats.checkpoint import Checkpoint
from lacewing.models import open_model
from lacewing.models.blocks.decoder import build_program
from lacewing.models.opening import find_architecture
from lacewing.models.readers.huggingface import read_huggingface
from tests.checkpoints import tiny
from tests.models.test_refusals import with_config, with_keys

# Sizes as the configuration classes of transformers have them by default, which are those of the models named; phi-2's are printed
# by its makers' class.
REAL = {
    "starcoder2-3b": ({"model_type": "starcoder2", "hidden_size": 3072, "intermediate_size": 12288, "num_hidden_layers": 30,
                       "num_attention_heads": 24}, 3.03),
    "phi-1": ({"model_type": "phi", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24,
               "num_attention_heads": 32}, 1.42),
    "phi-2": ({"model_type": "phi", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 32,
               "num_attention_heads": 32, "partial_rotary_factor": 0.4}, 2.78),
    "phi-3.5-moe": ({"model_type": "phimoe", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
                     "attention_bias": True, "lm_head_bias": True}, 41.9),
    "stablelm-3b-4e1t": ({"model_type": "stablelm", "hidden_size": 2560, "intermediate_size": 6912, "num_hidden_layers": 32,
                          "num_attention_heads": 32}, 2.8),
    "command-r-v01": ({"model_type": "cohere", "hidden_size": 8192, "intermediate_size": 22528, "num_hidden_layers": 40,
                       "num_attention_heads": 64}, 35.0),
    "glm-4-9b-0414": ({"model_type": "glm4", "hidden_size": 4096, "intermediate_size": 13696, "num_hidden_layers": 40,
                       "num_attention_heads": 32}, 9.4),
    "smollm3-3b": ({"model_type": "smollm3", "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
                    "num_attention_heads": 16}, 3.08),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_parameters_as_published(name):
    config, billions = REAL[name]
    row = find_architecture(config["model_type"], name)
    found, notices = read_huggingface(Checkpoint(Path(name), "safetensors", {"config.json": config}, {}), row, {})
    weights = build_program(found, 64, row.block).weights
    assert sum(math.prod(shape) for shape in weights.values()) / 1e9 == pytest.approx(billions, rel=0.01) and notices == []


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("norms")
    names = ("granite", "olmo3", "glm4", "smollm3", "cohere2", "phi", "phimoe", "apertus", "stablelm-12b")
    return {(name, kind): open_checkpoint(tiny(name, kind, folder)) for name in names for kind in ("gguf", "huggingface")}


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("granite", {"logits_scaling": 0}, "logits_scaling is 0"),
        ("granite", {"residual_multiplier": "x"}, "residual_multiplier is 'x'"),
        ("smollm3", {"no_rope_layers": [1]}, "no_rope_layers must be a list of 5 flags"),
        ("cohere2", {"rotary_pct": 0.5}, "rotary_pct is 0.5; this version knows 1"),
        ("phi", {"qk_layernorm": True}, "qk_layernorm is true"),
        ("phimoe", {"num_experts_per_tok": 3}, "SparseMixer chooses 2"),
        ("phimoe", {"rope_scaling": {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8, "short_mscale": 1.2,
                                     "long_mscale": 1.3}}, "1.2 and 1.3"),
        ("stablelm-12b", {"num_attention_heads": 2}, "is not 2 equal norms, one a head|heads do not divide|has shape"),
        ("apertus", {"hidden_act": "silu"}, "hidden_act is silu, but there are the constants"),
    ],
)  # fmt: skip
def test_refused_configs(opened, name, changes, message):
    with pytest.raises(LacewingError, match=message):
        open_model(with_config(opened[name, "huggingface"], **changes))


def test_granite_without_rotation(opened):
    """Granite 4 says so in a key that means nothing elsewhere."""
    assert open_model(opened["granite", "gguf"]).config.nope_layers == frozenset()
    config = open_model(with_keys(opened["granite", "gguf"], **{"granite.rope.scaling.finetuned": False})).config
    assert config.nope_layers == {0, 1} and config.residual_scale == pytest.approx(0.22)


def test_glm_4v_has_halves(opened):
    changed = with_keys(opened["glm4", "gguf"], **{"glm4.rope.dimension_sections": np.array([8, 4, 4, 0], np.int32)})
    assert open_model(opened["glm4", "gguf"]).config.adjacent_rope and not open_model(changed).config.adjacent_rope


def test_windows_of_olmo_3_turn_without_scaling(opened):
    config = open_model(opened["olmo3", "gguf"]).config
    assert (config.rope.kind, config.local_rope.kind) == ("yarn", "none") and config.windows == (7, 7, 7, None)
    assert config.rope.magnitude == pytest.approx(1 + 0.1 * math.log(4))  # once, not twice


def test_the_rope_of_phimoe_has_a_factor_of_its_own(opened):
    scaling = {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8, "short_mscale": 1.2, "long_mscale": 1.2,
               "original_max_position_embeddings": 64}  # fmt: skip
    assert open_model(with_config(opened["phimoe", "huggingface"], rope_scaling=scaling)).config.rope.magnitude == 1.2


def test_constants_of_xielu_from_keys(opened):
    """Those of layers in lists, one number for all, or none where they are the usual ones."""
    expected = open_model(opened["apertus", "huggingface"]).config.xielu
    lists = {"xielu.alpha_p": np.array([0.7, 1.0]), "xielu.alpha_n": np.array([-0.4, -0.1])}
    for more in ({}, {"xielu.beta": 0.5, "xielu.eps": [-1e-6, -1e-6]}):
        found = open_model(with_keys(opened["apertus", "gguf"], **lists, **more)).config.xielu
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    for wrong in (None, [0.7], "x", [0.7, "x"]):
        with pytest.raises(LacewingError, match=r"xielu.alpha_p must be a number for each of the 2 layers"):
            open_model(with_keys(opened["apertus", "gguf"], **lists | {"xielu.alpha_p": wrong}))


def test_norms_of_heads_that_lie_apart(tmp_path):
    """StableLM's, a tensor a head: mapped and copied alike."""
    path, found = tiny("stablelm-12b", "huggingface", tmp_path), []
    for residency in ("lazy", "eager"):
        with load(path, backend="cpu", residency=residency, context=64) as model:
            found.append(model.logits([1, 2, 3]))
    assert np.array_equal(*found)
