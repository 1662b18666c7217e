"""Values of other types, or of absurd sizes, for what is listed layer by layer: an error of ours, never another."""

import contextlib
from dataclasses import replace

import pytest

from lacewing.errors import LacewingError, UnsupportedModelError
from lacewing.formats import open_checkpoint
from lacewing.models import open_model
from tests.checkpoints import GOLDEN, config_of, tiny
from tests.models.test_refusals import with_config, with_keys

KEYS = ("layer_types", "layers_block_type", "hybrid_override_pattern", "attn_type_list", "time_step_limit", "mlp_layer_types",
        "indexer_types", "index_topk_pattern", "no_rope_layers")  # fmt: skip
TYPES = {config_of(name)["model_type"]: name for name in GOLDEN}


def test_lists_of_dictionaries(tmp_path):
    """Which could not be looked up among words."""
    for name in TYPES.values():
        checkpoint = open_checkpoint(tiny(name, "huggingface", tmp_path))
        config = checkpoint.metadata["config.json"]
        layers = config["num_hidden_layers"] or 1
        for key in KEYS:
            with contextlib.suppress(LacewingError):
                open_model(replace(checkpoint, metadata={"config.json": {**config, key: [{}] * layers}}))


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("nemotron_h", "layers_block_type", [{}] * 6, "layers_block_type must name one of mamba, attention, .* of the 6 layers"),
        ("granitehybrid", "layers_block_type", [{}] * 4, "layers_block_type must name one of mamba, linear_attention, .* 4 layers"),
        ("minimax-m2", "attn_type_list", 5, "attn_type_list must be a list of . flags"),
        ("gemma4", "per_layer_config", {"1" * 5000: {}}, "per_layer_config must be the same"),
        ("mamba2", "time_step_limit", [0, 10**400], "time_step_limit must be a least and a largest"),
        ("gemma3n", "hidden_size_per_layer_input", 2**24, "needs .* values a token for per_layer_"),
        ("step35", "moe_layers_enum", "1" * 5000, "moe_layers_enum is '111.*; it must be numbers of layers"),
        ("step35", "layer_types", [{}] * 4, "layer_types must name one of full_attention, sliding_attention|layer_types must name"),
        ("step35", "rope_theta", [10**400] * 4, "rope_theta is an integer of 1329 bits"),
        ("gemma4-edge", "pad_token_id", 2**24, "pad_token_id is 16777216; it must be an integer from 0 to 319"),
    ],
)
def test_the_error_names_the_key(name, key, value, message, tmp_path):
    checkpoint = open_checkpoint(tiny(name, "huggingface", tmp_path))
    changes = {"layer_types": None} if name == "granitehybrid" else {}
    with pytest.raises(LacewingError, match=message):
        open_model(with_config(checkpoint, **changes, **{key: value}))


def test_inputs_of_layers_without_a_width(tmp_path):
    checkpoint = open_checkpoint(tiny("gemma3n", "gguf", tmp_path))
    with pytest.raises(UnsupportedModelError, match="embedding_length_per_layer_input is missing or 0"):
        open_model(with_keys(checkpoint, gemma3n__embedding_length_per_layer_input=0))


def test_a_factor_of_rotation_near_zero(tmp_path):
    checkpoint = open_checkpoint(tiny("llama-linear", "gguf", tmp_path))
    with pytest.raises(UnsupportedModelError, match=r"rope\.scaling\.factor is .*; it must be 0, which means none"):
        open_model(with_keys(checkpoint, llama__rope__scaling__factor=1e-320))
