"""Files of Ollama: its names, what its converters left out or wrote wrongly, and vision parts in the same file.

The keys are those of files that it publishes (gemma3:1b, gemma3:4b, llama4:scout, mistral-small3.1, qwen2.5vl:3b, glm-4.7-flash),
as convert/*.go of their time wrote them; the weights are small random ones.
"""

from dataclasses import replace

import numpy as np
import pytest

from lacewing.api import load
from lacewing.errors import LacewingError, UnsupportedModelError
from lacewing.formats import open_checkpoint
from lacewing.models import open_model
from tests.checkpoint_files import metadata, write_gguf_tensors
from tests.checkpoint_files import tensors as tensors_of
from tests.checkpoints import config_of, prompt_of, tiny, weights_of
from tests.models.test_old_files import parts_of
from tests.tolerance import assert_equal_up_to_rounding

PICTURE = {"v.patch_embedding.weight": np.ones((8, 8), np.float32), "mm.mm_input_projection.weight": np.ones((8, 8), np.float32)}
VISION = {"vision.attention.head_count": 16, "vision.attention.layer_norm_epsilon": 1e-6, "vision.block_count": 27,
          "vision.embedding_length": 1152, "vision.feed_forward_length": 4304, "vision.image_size": 896, "vision.num_channels": 3,
          "vision.patch_size": 14, "mm.tokens_per_image": 256}  # fmt: skip
NOTICE = "the vision part of this checkpoint (512 B) is left out: text only"


def logits(path):
    with load(path, backend="reference", context=64) as model:
        return model.logits(prompt_of("gemma3"))


def gemma3(folder, name, extra=None, without=(), tensors=None, **changes):
    """A Gemma 3 file and its keys; `without` takes keys of llama.cpp away, `extra` adds some."""
    config = config_of("gemma3") | changes
    keys = {key: value for key, value in metadata(config).items() if key not in without} | (extra or {})
    found = tensors_of(config, weights_of(config), "gemma3") | (tensors or {})
    return write_gguf_tensors(folder / f"{name}.gguf", "gemma3", keys, found, "F32")


def test_the_small_gemma3(tmp_path):
    """Nested names of the bases, and a soft-cap that the model does not have, in the one of 26 layers."""
    bases = ("rope.freq_base", "rope.freq_base_swa")
    own = {"rope.local.freq_base": 1e4, "rope.global.freq_base": 5e5, "final_logit_softcapping": 30.0}
    sizes = {"num_hidden_layers": 26, "layer_types": None}
    path = gemma3(tmp_path, "ollama", own, bases, **sizes)
    plain = gemma3(tmp_path, "plain", rope_theta=5e5, **sizes)
    assert_equal_up_to_rounding(logits(path), logits(plain))
    spec = open_model(open_checkpoint(path))
    assert spec.config == open_model(open_checkpoint(plain)).config and spec.notices == ()
    six = gemma3(tmp_path, "six", own | {"final_logit_softcapping": 3.0}, bases)
    assert open_model(open_checkpoint(six)).config.final_softcap == 3.0


def test_the_gemma3_that_sees(tmp_path):
    """No eps, no scaling though it is linear by 8, a token more than rows, and a vision part."""
    gone = (
        "attention.layer_norm_rms_epsilon",
        "rope.freq_base",
        "rope.freq_base_swa",
        "attention.sliding_window_pattern",
        "vocab_size",
    )
    long = {"max_position_embeddings": 131072}
    path = gemma3(tmp_path, "ollama", VISION, gone, PICTURE, **long)
    scaling = {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    plain = gemma3(tmp_path, "plain", **long, **scaling)
    spec, expected = open_model(open_checkpoint(path)), open_model(open_checkpoint(plain))
    assert replace(spec.config, eps=expected.config.eps) == expected.config and spec.notices == (NOTICE,)
    assert (spec.config.rope.kind, spec.config.rope.factor, spec.config.local_rope.factor) == ("linear", 8.0, 1.0)
    assert_equal_up_to_rounding(logits(path), logits(plain))
    short = open_model(open_checkpoint(gemma3(tmp_path, "short", VISION, gone, PICTURE, max_position_embeddings=32768)))
    assert short.config.rope.factor == 1.0
    said = open_model(
        open_checkpoint(
            gemma3(tmp_path, "said", VISION, gone, PICTURE, rope_scaling={"rope_type": "linear", "factor": 4.0}, **long)
        )
    )
    assert said.config.rope.factor == 4.0
    other = open_model(open_checkpoint(gemma3(tmp_path, "other", **long)))  # of llama.cpp, whose word holds
    assert other.config.rope.factor == 1.0


def test_a_token_without_a_row(tmp_path):
    checkpoint = open_checkpoint(tiny("gemma3", "gguf", tmp_path))
    tokens = [*checkpoint.metadata["tokenizer.ggml.tokens"], "<image_soft_token>"]
    spec = open_model(replace(checkpoint, metadata={**checkpoint.metadata, "tokenizer.ggml.tokens": tokens}))
    assert spec.vocab_size == 320
    assert spec.notices == ("1 token of the tokenizer (320 and up) cannot be used: the embedding has no row",)
    with load(checkpoint.path, backend="reference") as model, pytest.raises(LacewingError, match="320"):
        model.logits([1, 320])


def test_the_scout_of_llama4(tmp_path):
    """The length of chunks and the norm of heads have keys of its own."""
    _, keys, tensors = parts_of("llama4")
    window = keys.pop("attention.sliding_window", 8192)
    own = {
        "attention.chunk_size": window,
        "use_qk_norm": True,
        "vision.pixel_shuffle_ratio": 0.5,
        "vision.layer_norm_epsilon": 1e-5,
    }
    path = write_gguf_tensors(tmp_path / "ollama.gguf", "llama4", keys | own | VISION, tensors | PICTURE, "F32")
    plain = open_model(open_checkpoint(tiny("llama4", "gguf", tmp_path)))
    spec = open_model(open_checkpoint(path))
    assert spec.config == plain.config and spec.notices == (NOTICE,)
    off = write_gguf_tensors(tmp_path / "off.gguf", "llama4", keys | own | {"use_qk_norm": False}, tensors, "F32")
    assert not open_model(open_checkpoint(off)).config.qk_norm_after_rope


def test_mistral3(tmp_path):
    """Llama blocks under another name; queries are scaled by position where the file says so."""
    config = config_of("llama-yarn")
    keys, tensors = metadata(config), tensors_of(config, weights_of(config), "llama")
    own = {"image_token_index": 10, "spatial_merge_size": 2, "mm.projector_bias": False, "mm.projector_hidden_act": "gelu"}
    path = write_gguf_tensors(tmp_path / "plain.gguf", "mistral3", keys | own | VISION, tensors | PICTURE, "F32")
    llama = logits(tiny("llama-yarn", "gguf", tmp_path))
    assert_equal_up_to_rounding(logits(path), llama)
    assert open_model(open_checkpoint(path)).notices == (NOTICE,)
    scaled = {"rope.scaling.beta_fast": 32.0, "rope.scaling.beta_slow": 1.0, "rope.scaling.mscale": 1.0,
              "rope.scaling.mscale_all_dim": 1.0, "rope.scaling_beta": 0.5, "rope.scaling.original_context_length": 8}  # fmt: skip
    path = write_gguf_tensors(tmp_path / "scaled.gguf", "mistral3", keys | scaled, tensors, "F32")
    spec = open_model(open_checkpoint(path))
    temperature = spec.config.attention_temperature
    assert temperature is not None and (temperature.beta, temperature.length, temperature.offset) == (0.5, 8, 0)
    assert spec.config.rope.magnitude == 1.0
    with pytest.raises(UnsupportedModelError, match=r"llama\.attention\.temperature_scale"):  # llama does not have it
        open_model(open_checkpoint(write_gguf_tensors(tmp_path / "llama.gguf", "llama", keys | scaled, tensors, "F32")))


@pytest.mark.parametrize("name", ["qwen25vl", "qwen2vl"])
def test_the_text_of_qwen_vl(name, tmp_path):
    """Positions of text are equal in all sections of mrope, which is then the usual rotation."""
    config = config_of("qwen2")
    sections = (
        {"rope.mrope_section": [2, 3, 3], "rope.scaling.type": "mrope"}
        if name == "qwen25vl"
        else {"rope.dimension_sections": [2, 3, 3, 0]}
    )
    keys = metadata(config) | sections | {key: value for key, value in VISION.items() if name == "qwen25vl"}
    extra = PICTURE if name == "qwen25vl" else {}
    path = write_gguf_tensors(tmp_path / "vl.gguf", name, keys, tensors_of(config, weights_of(config), "qwen2") | extra, "F32")
    assert_equal_up_to_rounding(logits(path), logits(tiny("qwen2", "gguf", tmp_path)))
    assert open_model(open_checkpoint(path)).notices == ((NOTICE,) if extra else ())


def test_glm_4_7_flash(tmp_path):
    """Lengths of heads and of the latent vectors stand in each other's place."""
    _, keys, tensors = parts_of("glm4moe-lite")
    lengths = {f"attention.{part}_length": keys[f"attention.{part}_length_mla"] for part in ("key", "value")}
    lengths |= {f"attention.{part}_length_mla": keys[f"attention.{part}_length"] for part in ("key", "value")}
    path = write_gguf_tensors(
        tmp_path / "ollama.gguf", "glm4moelite", keys | lengths | {"attention.head_count_kv": 4}, tensors, "F32"
    )
    plain = open_model(open_checkpoint(tiny("glm4moe-lite", "gguf", tmp_path)))
    spec = open_model(open_checkpoint(path))
    assert spec.config.latent == plain.config.latent and spec.program.ops == plain.program.ops


def test_lfm2_with_a_stale_length(tmp_path):
    checkpoint = open_checkpoint(tiny("lfm2", "gguf", tmp_path))
    spec = open_model(replace(checkpoint, metadata={**checkpoint.metadata, "lfm2.feed_forward_length": 12288}))
    assert spec.program == open_model(checkpoint).program
    assert spec.notices == ("lfm2.feed_forward_length is 12288, but the weights have 128, which holds",)
