"""What must not open: unknown keys and architectures, sizes out of bounds, wrong weights. Each error names its cause."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest

from lacewing.errors import LacewingError, OptionError, UnsupportedModelError, WeightError
from lacewing.formats import open_checkpoint
from lacewing.formats.checkpoint import Checkpoint
from lacewing.models import open_model
from lacewing.quants import by_name
from tests.checkpoints import tiny


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    names = ("llama", "phi3-long", "gemma2", "gemma3", "qwen2", "llama-yarn", "qwen3", "lfm2")
    return {(name, kind): open_checkpoint(tiny(name, kind, folder)) for name in names for kind in ("gguf", "huggingface")}


def with_config(checkpoint: Checkpoint, **changes) -> Checkpoint:
    config = dict(checkpoint.metadata["config.json"]) | changes
    return replace(checkpoint, metadata={**checkpoint.metadata, "config.json": config})


def with_keys(checkpoint: Checkpoint, **changes) -> Checkpoint:
    keys = {name.replace("__", "."): value for name, value in changes.items()}
    return replace(checkpoint, metadata={**checkpoint.metadata, **keys})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model_type": "bert"},
            r"'bert' is not here yet: it needs attention without .* (an encoder); this version runs .*deepseek2",
        ),
        (
            {"model_type": "deepseek_v4"},
            "DeepSeek V3.2, hyper-connections .* and a SwiGLU .*(docs/next-architectures.md describes them)",
        ),
        ({"model_type": "rwkv7"}, "'rwkv7' is not here yet: it needs the time mixing of RWKV-7; this version runs"),
        ({"model_type": None}, "no model_type"),
        ({"model_type": "../../evil"}, "'../../evil' is not known; this version"),
        ({"num_local_experts": 8}, "mixture-of-experts comes later"),
        ({"quantization_config": {"quant_method": "awq"}}, "'awq'"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'; this version knows silu"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"rope_scaling": {"type": "su"}}, "type is 'su'; this version knows default, linear"),
        ({"rope_scaling": {"rope_type": "linear"}}, "factor is missing"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, "factor is 0"),
        ({"rope_scaling": [1]}, "must be a dictionary"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2, "original_max_position_embeddings": 1}}, "original context 1"),
        ({"is_encoder_decoder": True}, r"is_encoder_decoder is True; .* use `ignore_keys=.'is_encoder_decoder'.`"),
        ({"use_bidirectional_attention": True}, "causal models only"),
        ({"num_hidden_layers": 1025}, "from 1 to 1024"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers is '2'"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"num_attention_heads": 5}, "does not divide"),
        ({"num_attention_heads": 65}, "does not divide"),
        ({"num_key_value_heads": 3}, "4 heads do not divide over 3 key heads"),
        ({"head_dim": 15}, "even"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
        ({"rms_norm_eps": 0}, "rms_norm_eps is 0"),
        ({"rope_theta": -1}, "rope_theta is -1"),
        ({"partial_rotary_factor": 0.01}, "0 rotated values"),
        ({"layer_types": ["full_attention"]}, "each of the 2 layers"),
        ({"layer_types": ["full_attention", "linear_attention"]}, "layer_types"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "no sliding_window"),
        ({"tie_word_embeddings": "yes"}, "true or false"),
        ({"text_config": 3}, "text_config"),
        ({"max_position_embeddings": 10**400}, "max_position_embeddings"),
    ],
)
def test_refused_config(opened, changes, message):
    with pytest.raises(UnsupportedModelError, match="(?s)" + message.replace("(", r"\(").replace(")", r"\)")):
        open_model(with_config(opened["llama", "huggingface"], **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general__architecture": "rwkv7"}, "'rwkv7' is not here yet: it needs the time mixing"),
        ({"general__architecture": "unheard-of"}, "'unheard-of' is not known; this version runs"),
        ({"general__architecture": 7}, "general.architecture is missing"),
        ({"llama__expert_count": 8}, "expert_used_count is missing"),
        ({"llama__logit_scale": 0.5}, "llama.logit_scale is 0.5; .* use `ignore_keys=.'llama.logit_scale'.`"),
        ({"llama__rope__scaling__type": "mystery"}, "rope.scaling.type is 'mystery'; this version knows none, linear, yarn"),
        ({"llama__rope__scaling__type": "longrope"}, "longrope needs rope_factors_long.weight"),
        ({"llama__block_count": 2**40}, "block_count"),
        ({"llama__attention__head_count": [4, 2]}, "differs from layer to layer"),
        ({"llama__attention__head_count_kv": 3}, "3 key heads"),
        ({"llama__attention__value_length": 8}, "attention.value_length"),
        ({"llama__rope__dimension_count": 18}, "18 rotated values"),
        ({"llama__rope__scaling__yarn_ext_factor": 0.5, "llama__rope__scaling__type": "yarn"}, "yarn_ext_factor"),
        ({"llama__attention__sliding_window": 4, "llama__attention__sliding_window_pattern": [True]}, "flags, one a layer"),
        ({"llama__attention__layer_norm_rms_epsilon": None}, "layer_norm_rms_epsilon is missing"),
        ({"tokenizer__ggml__tokens": ["a"]}, "320 rows but there are 1 tokens in the tokenizer"),
        ({"tokenizer__ggml__tokens": np.zeros(0, np.float32)}, "320 rows but there are 0 tokens in the tokenizer"),
        ({"tokenizer__ggml__tokens": ["a"] * 577}, "320 rows but there are 577 tokens in the tokenizer"),
        ({"general__architecture": "y" * 5000}, "architecture 'y{100}...' is not known"),
        ({"llama__embedding_length": 128}, "has shape"),
        ({"llama__block_count": 3}, "9 weights are missing: blk.2.attn_norm.weight"),
        ({"llama__block_count": 1}, "9 weights have no place in the model: blk.1."),
        ({"llama__nextn_predict_layers": 1}, "multi-token prediction"),
        ({"llama__attention__causal": False}, "causal models only"),
        ({"llama__attention__key_length_swa": 8}, "attention.key_length_swa differs"),
    ],
)
def test_refused_keys(opened, changes, message):
    with pytest.raises((UnsupportedModelError, WeightError), match=message.replace("(", r"\(").replace(")", r"\)")):
        open_model(with_keys(opened["llama", "gguf"], **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"some_note": None, "another": False, "unsloth_fixed": True, "transformers_version": "4.40", "pretraining_tp": 2},
        {"auto_map": {"AutoModel": "evil.py"}, "torch_dtype": "bfloat16", "rope_interleaved": False, "is_llama_config": True},
        {"full_attn_mod": 1, "interpolate_factor": 1, "head_dim": None, "rope_scaling": None, "sliding_window": None},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "rope_theta": None},
        {"num_hidden_layers": 2.0},
    ],
)
def test_harmless_config(opened, changes):
    changed = open_model(with_config(opened["llama", "huggingface"], **changes))
    assert changed.program == open_model(opened["llama", "huggingface"]).program


@pytest.mark.parametrize("tokens", [1, 2.0, "text", True])
def test_a_vocabulary_that_is_none_is_no_matter_of_the_model(opened, tokens):
    """Logits need no tokenizer, which refuses it."""
    assert open_model(with_keys(opened["llama", "gguf"], tokenizer__ggml__tokens=tokens)).vocab_size == 320


def test_names_are_safe_for_a_terminal(opened):
    assert open_model(with_keys(opened["llama", "gguf"], general__name="a\x1b[31mb")).name == "a\\x1b[31mb"
    assert len(open_model(with_keys(opened["llama", "gguf"], general__name="a" * 500)).name) < 110


@pytest.mark.parametrize("kind", ["I8", "I16", "I32", "I64", "U8", "BOOL"])
def test_weights_of_whole_numbers_are_refused(opened, kind):
    """They are codes of a quantisation that nobody told of."""
    checkpoint = opened["llama", "huggingface"]
    for name in ("model.layers.0.mlp.up_proj.weight", "model.norm.weight"):
        info = replace(checkpoint.tensors[name], quant=by_name(kind))
        with pytest.raises(UnsupportedModelError, match=f"whole numbers .{kind}"):
            open_model(replace(checkpoint, tensors={**checkpoint.tensors, name: info}))


def test_the_kv_cache_is_as_precise_as_the_weights(opened):
    checkpoint = opened["llama", "gguf"]
    for kind, dtype in (("F64", "f32"), ("F32", "f32"), ("BF16", "f32"), ("F16", "f16"), ("Q8_0", "f16")):
        tensors = {name: replace(info, quant=by_name(kind)) for name, info in checkpoint.tensors.items()}
        assert dtypes(open_model(replace(checkpoint, tensors=tensors))) == {dtype}


def dtypes(spec):
    return {part.dtype for state in spec.program.states for part in state.parts}


def test_a_kv_type_that_heads_do_not_allow(opened):
    checkpoint = opened["llama", "gguf"]  # heads of 16
    with pytest.raises(OptionError, match="`kv_type='q8_0'` stores blocks of 32 values, but heads have 16; use f16 or f32"):
        open_model(checkpoint, kv_type="q8_0")
    assert dtypes(open_model(checkpoint, kv_type="f16")) == {"f16"}
    assert dtypes(open_model(opened["qwen3", "gguf"], kv_type="q8_0")) == {"q8_0"}


def test_missing_and_left_over_weights(opened):
    for kind, name in (("gguf", "blk.1.attn_q.weight"), ("huggingface", "model.layers.1.self_attn.q_proj.weight")):
        checkpoint = opened["llama", kind]
        tensors = dict(checkpoint.tensors)
        info = tensors.pop(name)
        with pytest.raises(WeightError, match=f"1 weights are missing: {name}"):
            open_model(replace(checkpoint, tensors=tensors))
        with pytest.raises(WeightError, match="1 weights have no place in the model: surplus"):
            open_model(replace(checkpoint, tensors={**checkpoint.tensors, "surplus": info}))
        wrong = replace(info, shape=(*info.shape[::-1], 1))
        with pytest.raises(WeightError, match=rf"{name} has shape"):
            open_model(replace(checkpoint, tensors={**checkpoint.tensors, name: wrong}))


def test_biases_and_the_output_must_be_there_where_the_config_says_so(opened):
    checkpoint = opened["llama", "huggingface"]
    with pytest.raises(WeightError, match=r"model\.layers\.0\.self_attn\.q_proj\.bias"):
        open_model(with_config(checkpoint, attention_bias=True))
    tensors = {name: info for name, info in checkpoint.tensors.items() if name != "lm_head.weight"}
    with pytest.raises(WeightError, match=r"missing: lm_head\.weight"):
        open_model(replace(checkpoint, tensors=tensors))


def test_twice_the_same_weight(opened):
    checkpoint = opened["llama", "huggingface"]
    tensors = {**checkpoint.tensors, "norm.weight": checkpoint.tensors["model.norm.weight"]}
    with pytest.raises(WeightError, match=r"two weights are model\.norm"):
        open_model(replace(checkpoint, tensors=tensors))


def test_longrope_of_gguf_needs_both_tables(opened):
    checkpoint = opened["phi3-long", "gguf"]
    tensors = {name: info for name, info in checkpoint.tensors.items() if "short" not in name}
    with pytest.raises(WeightError, match="longrope needs both"):
        open_model(replace(checkpoint, tensors=tensors))
    with pytest.raises(UnsupportedModelError, match="4 rope factors for 16 rotated"):
        open_model(with_keys(checkpoint, phi3__rope__dimension_count=16))
    with pytest.raises(UnsupportedModelError, match="original context 1"):
        open_model(with_keys(checkpoint, phi3__rope__scaling__original_context_length=1))


def test_random_values_never_escape_as_other_errors(opened):
    """Every key of both formats set to hostile values opens or raises a LacewingError."""
    hostile = [-1, 0, 2**63, 1e308, float("inf"), float("nan"), "", "x" * 100, "\x1b", [], [1, 2], {}, True, {"a": 1}, {"a": [{}]}]
    hostile += [[[1, 2], [3, 4]], [[[1]]], [{}], [None], [float("nan")], ["a"]]
    arrays = [np.array([1, 2]), [np.array([1, 2]), np.array([3, 4])], [[np.array([1.5])]], np.array([], np.float32)]
    for checkpoint in opened.values():
        gguf = checkpoint.format == "gguf"
        keys = [k for k in checkpoint.metadata if gguf and not k.startswith("tokenizer")] or list(
            checkpoint.metadata["config.json"]
        )
        for key in keys:
            for value in hostile + arrays if gguf else hostile:
                with contextlib.suppress(LacewingError):
                    open_model(with_keys(checkpoint, **{key: value}) if gguf else with_config(checkpoint, **{key: value}))
