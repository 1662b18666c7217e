"""What opening says about a model besides its logits: sizes, contexts, names, dtypes, wrappers, precedence of keys."""

import json
from dataclasses import replace

import numpy as np
import pytest
from gguf.constants import MODEL_ARCH_NAMES

from lacewing.formats import open_checkpoint
from lacewing.models import known_architectures, open_model
from lacewing.models.missing import listed
from lacewing.models.opening import find_architecture
from lacewing.program.ops import AddNorm, Attention, Embed, Linear, Norm
from lacewing.program.states import Window
from tests.checkpoints import config_of, prompt_of, tiny
from tests.models.running import open_step, run
from tests.models.test_refusals import with_config, with_keys
from tests.tolerance import assert_equal_up_to_rounding


def opened(name, kind, folder, quant="F32", **changes):
    return open_checkpoint(tiny(name, kind, folder, quant, **changes))


def test_an_architecture_is_here_or_missing_and_never_both():
    """llama.cpp's list is covered: each name has a row, or the table of what is missing says why not."""
    rows = {name for file in known_architectures() for row in [find_architecture(file, "")] for name in (file, row.name, *row.also)}
    assert listed() & rows == set(), "models/missing.py: here now"
    assert set(MODEL_ARCH_NAMES.values()) - rows - listed() == set(), "models/missing.py lacks"


@pytest.mark.parametrize("kind", ["gguf", "huggingface"])
def test_sizes(kind, tmp_path):
    spec = open_model(opened("llama", kind, tmp_path))
    block = 64 * 64 * 2 + 64 * 32 * 2 + 64 * 96 * 3 + 2 * 64
    assert spec.parameters == spec.active_parameters == 2 * block + 64 + 2 * 320 * 64
    assert spec.active_bytes == 4 * (2 * block + 64 + 320 * 64 + 64)  # one row of the embedding
    assert (spec.architecture, spec.vocab_size, spec.trained_context, spec.context) == ("llama", 320, 256, 256)
    assert spec.name == ("tiny" if kind == "gguf" else "llama-F32")
    assert open_model(opened("llama-tied", kind, tmp_path)).active_bytes > 4 * 320 * 64


def test_both_formats_give_the_same_program_but_for_the_pairing(tmp_path):
    for name in ("qwen2", "qwen3", "phi3", "gemma2", "gemma3", "lfm2"):
        ours = [open_model(opened(name, kind, tmp_path)).program for kind in ("gguf", "huggingface")]
        assert ours[0].weights == ours[1].weights
        assert [op.kind for op in ours[0].ops] == [op.kind for op in ours[1].ops]
        assert ours[0].states == ours[1].states
    llama = {kind: open_model(opened("llama", kind, tmp_path)).config for kind in ("gguf", "huggingface")}
    assert llama["gguf"].adjacent_rope
    assert not llama["huggingface"].adjacent_rope


def test_the_residual_stream_is_added_by_the_norms(tmp_path):
    program = open_model(opened("llama", "gguf", tmp_path)).program
    assert [type(op) for op in program.ops if isinstance(op, Norm | AddNorm)] == [Norm, AddNorm, AddNorm, AddNorm, AddNorm]


def test_fused_linears_are_one_op(tmp_path):
    program = open_model(opened("phi3", "gguf", tmp_path)).program
    linears = [op.weights for op in program.ops if isinstance(op, Linear)][:4]
    assert [len(weights) for weights in linears] == [1, 1, 1, 1]
    assert linears[2] == ("blk.0.ffn_up.weight",)
    program = open_model(opened("llama", "gguf", tmp_path)).program
    assert [len(op.weights) for op in program.ops if isinstance(op, Linear)][:4] == [3, 1, 2, 1]


def test_longrope_opens_at_its_original_context(tmp_path):
    checkpoint = opened("phi3-short", "huggingface", tmp_path)
    assert open_model(checkpoint).context == 64
    assert open_model(checkpoint).trained_context == 256
    long, short = open_model(checkpoint, 65).program, open_model(checkpoint, 64).program
    assert long.ops != short.ops
    assert short.ops == open_model(checkpoint).program.ops


def test_dynamic_scaling_at_the_configured_context(tmp_path):
    checkpoint = opened("llama", "huggingface", tmp_path, rope_scaling={"type": "dynamic", "factor": 2.0})
    plain = open_model(
        opened("llama-tied", "huggingface", tmp_path, tie_word_embeddings=False, head_dim=None, num_key_value_heads=2)
    )
    assert open_model(checkpoint, 256).program.ops == plain.program.ops
    assert open_model(checkpoint, 512).program.ops != plain.program.ops


def test_gemma_scale_is_rounded_as_the_weights_are(tmp_path):
    sizes = {"hidden_size": 96}  # sqrt(96) = 9.79796, in bf16 9.8125
    scales = {}
    for kind, quant in (("huggingface", "F32"), ("huggingface", "BF16"), ("gguf", "F32")):
        spec = open_model(opened("gemma", kind, tmp_path, quant, **sizes))
        scales[kind, quant] = next(op.scale for op in spec.program.ops if isinstance(op, Embed))
        assert {op.weight_offset for op in spec.program.ops if isinstance(op, Norm)} == {0.0 if kind == "gguf" else 1.0}
    assert scales["huggingface", "BF16"] == 9.8125
    assert scales["huggingface", "F32"] == scales["gguf", "F32"] == 96**0.5


def test_windows_and_scales_of_the_gemmas(tmp_path):
    gemma2 = open_model(opened("gemma2", "huggingface", tmp_path))
    assert gemma2.config.windows == (8, None, 8, None)
    assert next(op.scale for op in gemma2.program.ops if isinstance(op, Attention)) == 20**-0.5
    gemma3 = open_model(opened("gemma3", "gguf", tmp_path))
    assert gemma3.config.windows == (8, 8, 8, 8, 8, None)
    assert [state.reach for state in gemma3.program.states] == [Window(8)] * 5 + [None]
    assert (gemma3.config.rope.base, gemma3.config.local_rope.base) == (1e6, 1e4)
    capless = opened("gemma2", "huggingface", tmp_path / "capless", attn_logit_softcapping=None, final_logit_softcapping=None)
    assert open_model(capless).config.attention_softcap is open_model(capless).config.final_softcap is None


def test_the_two_gemmas_of_27b_have_a_scale_of_their_own(tmp_path):
    checkpoint = opened("gemma2", "gguf", tmp_path, num_hidden_layers=46, query_pre_attn_scalar=32)
    assert open_model(checkpoint).config.attention_scale == (64 / 4) ** -0.5


@pytest.mark.parametrize(
    ("changes", "windows"),
    [
        ({}, (4096, 4096)),  # the default of the class
        ({"sliding_window": None}, (None, None)),
        ({"sliding_window": 7}, (7, 7)),
        ({"sliding_window": 7, "layer_types": ["full_attention", "sliding_attention"]}, (None, 7)),
        ({"sliding_window": 7, "use_sliding_window": False}, (None, None)),
    ],
)
def test_windows_of_mistral(changes, windows, tmp_path):
    checkpoint = opened("mistral", "huggingface", tmp_path)
    config = {key: value for key, value in checkpoint.metadata["config.json"].items() if key != "sliding_window"}
    checkpoint = replace(checkpoint, metadata={**checkpoint.metadata, "config.json": config | changes})
    assert open_model(checkpoint).config.windows == windows


def test_gguf_window_keys(tmp_path):
    checkpoint = opened("llama", "gguf", tmp_path)
    assert open_model(with_keys(checkpoint, llama__attention__sliding_window=5)).config.windows == (5, 5)
    patterned = {"llama__attention__sliding_window": 5, "llama__attention__sliding_window_pattern": 2}
    assert open_model(with_keys(checkpoint, **patterned)).config.windows == (5, None)
    flagged = patterned | {"llama__attention__sliding_window_pattern": np.array([False, True])}
    assert open_model(with_keys(checkpoint, **flagged)).config.windows == (None, 5)


def test_a_multimodal_wrapper_opens_as_its_text_model(tmp_path):
    path = tiny("gemma3-linear", "huggingface", tmp_path)
    expected = run(open_step(path)[1], prompt_of("gemma3-linear"))
    config = json.loads((path / "config.json").read_text())
    wrapper = {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"], "text_config": config}
    (path / "config.json").write_text(json.dumps(wrapper | {"vision_config": {}, "mm_tokens_per_image": 256}))
    assert_equal_up_to_rounding(run(open_step(path)[1], prompt_of("gemma3-linear")), expected)


def test_the_newer_form_of_rope_keys(tmp_path):
    """transformers 5 writes rope_parameters, nested where layers differ."""
    older = opened("gemma3-linear", "huggingface", tmp_path)
    nested = {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
              "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}  # fmt: skip
    newer = with_config(older, rope_scaling=None, rope_theta=None, rope_local_base_freq=None, rope_parameters=nested)
    assert open_model(newer).program == open_model(older).program
    older = opened("llama-llama3", "huggingface", tmp_path)
    flat = config_of("llama-llama3")["rope_scaling"] | {"rope_theta": 500000.0}
    newer = with_config(older, rope_scaling=None, rope_theta=None, rope_parameters=flat)
    assert open_model(newer).program == open_model(older).program


@pytest.mark.parametrize("quant", ["F16", "BF16"])
def test_half_precision_weights(quant, tmp_path):
    exact = run(open_step(tiny("llama", "huggingface", tmp_path))[1], prompt_of("llama"))
    for kind in ("gguf", "huggingface"):
        rounded = run(open_step(tiny("llama", kind, tmp_path, quant))[1], prompt_of("llama"))
        np.testing.assert_allclose(rounded, exact, atol=0.1 if quant == "BF16" else 0.01)


def test_fused_and_plain_projections_are_both_read(tmp_path):
    """Some converters fuse q, k and v of any family."""
    checkpoint = opened("qwen3", "gguf", tmp_path)
    tensors = dict(checkpoint.tensors)
    for layer in range(2):
        parts = [tensors.pop(f"blk.{layer}.attn_{part}.weight") for part in "qkv"]
        rows = sum(part.shape[0] for part in parts)
        ranges = tuple(part.ranges[0] for part in parts)
        tensors[f"blk.{layer}.attn_qkv.weight"] = replace(parts[0], shape=(rows, 64), ranges=ranges)
    program = open_model(replace(checkpoint, tensors=tensors)).program
    assert program.weights["blk.0.attn_qkv.weight"] == (128 + 64 + 64, 64)
