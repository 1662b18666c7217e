"""Where config and weights disagree: what holds is what transformers takes, and a person is told."""

import json
from dataclasses import replace

import pytest

from lacewing.api import load
from lacewing.errors import WeightError
from lacewing.formats import open_checkpoint
from lacewing.models import open_model
from tests.checkpoint_files import as_bytes
from tests.checkpoints import config_of, prompt_of, tiny, weights_of
from tests.models.test_fp8 import write
from tests.models.test_refusals import with_config, with_keys
from tests.tolerance import assert_equal_up_to_rounding

TIED = "tie_word_embeddings is true, but lm_head.weight is not the embedding; it is used"


def directory(folder, weights, **config):
    path = tiny("llama", "huggingface", folder)
    write(path, {name: ("F32", value, as_bytes(value, "F32")) for name, value in weights.items()})
    (path / "config.json").write_text(json.dumps(config_of("llama") | config))
    return path


def logits(path, **options):
    with load(path, backend="reference", context=64, **options) as model:
        return model.logits(prompt_of("llama")), model.notices


def test_a_head_of_its_own_is_the_output_whatever_the_config_says(tmp_path):
    weights = weights_of(config_of("llama"))
    expected, _ = logits(directory(tmp_path / "untied", weights, tie_word_embeddings=False))
    found, notices = logits(directory(tmp_path / "tied", weights, tie_word_embeddings=True))
    assert_equal_up_to_rounding(found, expected)
    assert notices == (f"llama-F32/config.json: {TIED}",)


def test_a_head_that_is_a_copy_is_no_news(tmp_path):
    weights = weights_of(config_of("llama"))
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    found, notices = logits(directory(tmp_path / "copy", weights, tie_word_embeddings=True))
    del weights["lm_head.weight"]
    expected, _ = logits(directory(tmp_path / "tied", weights, tie_word_embeddings=True))
    assert_equal_up_to_rounding(found, expected)
    assert notices == ()
    with pytest.raises(WeightError, match=r"1 weights are missing: lm_head\.weight"):
        logits(directory(tmp_path / "untied", weights, tie_word_embeddings=False))


def test_an_embedding_that_is_only_there_as_the_head(tmp_path):
    weights = weights_of(config_of("llama-tied"))
    expected, _ = logits(tiny("llama-tied", "huggingface", tmp_path))
    weights["lm_head.weight"] = weights.pop("model.embed_tokens.weight")
    sizes = {name: config_of("llama-tied")[name] for name in ("num_key_value_heads", "head_dim", "tie_word_embeddings")}
    found, _ = logits(directory(tmp_path / "swapped", weights, **sizes))
    assert_equal_up_to_rounding(found, expected)


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize(
    ("outer", "inner"), [(True, False), (False, True), (True, True), (None, True), (True, None), (False, False), (None, None)]
)
def test_the_config_around_the_texts_and_its_own(outer, inner, head, tmp_path):
    """transformers 5 asks the outer one, transformers 4 the inner one; without a head, either ties."""
    weights = weights_of(config_of("llama"))
    if not head:
        del weights["lm_head.weight"]
    checkpoint = open_checkpoint(directory(tmp_path, weights))
    text = {name: value for name, value in config_of("llama").items() if name != "tie_word_embeddings"}
    text |= {} if inner is None else {"tie_word_embeddings": inner}
    config = {"model_type": "llava", "text_config": text} | ({} if outer is None else {"tie_word_embeddings": outer})
    checkpoint = replace(checkpoint, metadata={"config.json": config})
    if not head and not outer and not inner:
        with pytest.raises(WeightError, match=r"lm_head\.weight"):
            open_model(checkpoint)
        config["model_type"] = "mistral3"  # ties unless somebody says otherwise
        if outer is not None:
            return
    spec = open_model(checkpoint)
    assert ("output.weight" in spec.tensors) == head
    assert any(TIED in notice for notice in spec.notices) == (head and bool(outer or inner))


@pytest.mark.parametrize("named", [319, 321, 2**20])
def test_a_stale_number_of_tokens(named, tmp_path):
    """The rows of the embedding hold."""
    for kind, change in (("gguf", with_keys), ("huggingface", with_config)):
        checkpoint = open_checkpoint(tiny("llama", kind, tmp_path))
        spec = open_model(change(checkpoint, **{"llama__vocab_size" if kind == "gguf" else "vocab_size": named}))
        assert spec.vocab_size == 320 and spec.program == open_model(checkpoint).program
        assert len(spec.notices) == 1 and f"vocab_size is {named}, but the embedding has 320 rows, which hold" in spec.notices[0]


def test_an_entry_of_the_index_without_a_tensor(tmp_path):
    """No matter unless the model needs it, and then it is the model that lacks it."""
    path = tiny("llama", "huggingface", tmp_path)
    weights = weights_of(config_of("llama"))
    (path / "model.safetensors").rename(path / "one.safetensors")
    index = dict.fromkeys([*weights, "model.layers.9.self_attn.rotary_emb.inv_freq"], "one.safetensors")
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    expected = tiny("llama", "huggingface", tmp_path / "plain")
    assert_equal_up_to_rounding(logits(path)[0], logits(expected)[0])
    del weights["model.norm.weight"]
    write(path, {name: ("F32", value, as_bytes(value, "F32")) for name, value in weights.items()})
    (path / "model.safetensors").replace(path / "one.safetensors")
    with pytest.raises(WeightError, match=r"1 weights are missing: model\.norm\.weight"):
        logits(path)


@pytest.mark.parametrize(
    ("name", "prefix", "weight", "theirs"),
    [
        ("llama", "", "model.layers.1.self_attn.q_proj.weight", "model.layers.1.self_attn.q_proj.weight"),
        ("llama", "language_model.", "model.layers.1.mlp.up_proj.weight", "language_model.model.layers.1.mlp.up_proj.weight"),
        ("llama", "", "model.embed_tokens.weight", "model.embed_tokens.weight"),
        ("gemma3", "", "model.layers.0.post_attention_layernorm.weight", "model.layers.0.post_attention_layernorm.weight"),
        ("mixtral", "", "model.layers.0.block_sparse_moe.gate.weight", "model.layers.0.block_sparse_moe.gate.weight"),
        ("gpt-oss", "", "model.layers.0.self_attn.sinks", "model.layers.0.self_attn.sinks"),
        ("mistral4", "", "model.layers.0.mlp.experts.down_proj", "model.layers.0.mlp.experts.down_proj"),
        ("lfm2", "", "model.embedding_norm.weight", "model.embedding_norm.weight"),
    ],
)
def test_errors_of_a_directory_have_its_own_names(name, prefix, weight, theirs, tmp_path):
    checkpoint = open_checkpoint(tiny(name, "huggingface", tmp_path))
    tensors = {prefix + key: info for key, info in checkpoint.tensors.items() if key != weight}
    with pytest.raises(WeightError, match=f"missing: {theirs}$"):
        open_model(replace(checkpoint, tensors=tensors))
    turned = replace(checkpoint.tensors[weight], shape=(3, 5, 7, 1))
    with pytest.raises(WeightError, match=f" {theirs}"):
        open_model(replace(checkpoint, tensors={**tensors, prefix + weight: turned}))


@pytest.mark.parametrize("name", ["mixtral", "qwen3moe", "deepseek3", "llama4", "gpt-oss", "olmoe"])
def test_the_width_of_experts_is_that_of_their_weights(name, tmp_path):
    checkpoint = open_checkpoint(tiny(name, "gguf", tmp_path))
    architecture = checkpoint.metadata["general.architecture"]
    bare = with_keys(checkpoint, **{f"{architecture}.expert_feed_forward_length": None})
    assert open_model(bare).config == open_model(checkpoint).config
    wide = with_keys(
        bare, **{f"{architecture}.feed_forward_length": 2 * checkpoint.metadata[f"{architecture}.feed_forward_length"]}
    )
    assert open_model(wide).config.mixture == open_model(checkpoint).config.mixture


def test_keys_of_mixtures_say_nothing_of_a_dense_model(tmp_path):
    checkpoint = open_checkpoint(tiny("llama", "gguf", tmp_path))
    keys = {
        "llama.expert_count": 0,
        "llama.expert_used_count": 2,
        "llama.expert_gating_func": 2,
        "llama.leading_dense_block_count": 1,
    }
    assert open_model(with_keys(checkpoint, **keys)).program == open_model(checkpoint).program
