"""Hugging Face names to ours."""

import pytest

from lacewing.models.names import POST_NORM_NAMES, STANDARD_NAMES, is_ignored, part_of, translate, usual_name


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.norm.weight", "output_norm.weight"),
        ("lm_head.weight", "output.weight"),
        ("model.layers.12.self_attn.q_proj.bias", "blk.12.attn_q.bias"),
        ("model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight"),
        ("model.layers.3.post_attention_layernorm.weight", "blk.3.ffn_norm.weight"),
        ("language_model.model.layers.3.input_layernorm.weight", "blk.3.attn_norm.weight"),
        ("language_model.lm_head.weight", "output.weight"),
        ("model.language_model.embed_tokens.weight", "token_embd.weight"),
        ("model.layers.3.mlp.experts.0.up_proj.weight", None),
        ("model.layers.3.embed_tokens.weight", None),
        ("model.layers.3.mlp.down_proj.scale", None),
        ("model.input_layernorm.weight", None),
        ("model.layers.99999999.input_layernorm.weight", None),
        ("", None),
    ],
)
def test_translate(theirs, ours):
    assert translate(theirs, STANDARD_NAMES) == ours


def test_an_architecture_may_differ():
    name = "model.layers.3.post_attention_layernorm.weight"
    assert translate(name, STANDARD_NAMES | POST_NORM_NAMES) == "blk.3.post_attention_norm.weight"


def test_ignored():
    assert is_ignored("model.layers.0.self_attn.rotary_emb.inv_freq")
    assert not is_ignored("model.layers.0.self_attn.q_proj.weight")
    assert not is_ignored("model.layers.0.self_attn.bias")


def test_other_parts_than_the_language_model():
    for name in ("vision_tower.encoder.layers.0.self_attn.q_proj.weight", "model.multi_modal_projector.weight",
                 "vision_model.patch_embedding.weight", "v.blk.0.attn_q.weight", "mm.input_projection.weight"):  # fmt: skip
        assert part_of(name) == "vision"
    assert part_of("model.audio_tower.conv.weight") == "audio"
    for name in ("model.layers.0.self_attn.v_proj.weight", "blk.0.attn_v.weight", "output.weight", "visualise.weight"):
        assert part_of(name) is None


def test_names_that_few_files_have():
    table = {"blk.*.attn_out.weight": "blk.*.attn_output.weight", "token_embd_norm.weight": "output_norm.weight"}
    assert usual_name("blk.12.attn_out.weight", table) == "blk.12.attn_output.weight"
    assert usual_name("blk.12.attn_q.weight", table) == "blk.12.attn_q.weight"
    assert usual_name("attn_out.weight", table) == "attn_out.weight"
    assert usual_name("token_embd_norm.weight", table) == "output_norm.weight"
    assert usual_name("blk.0.token_embd_norm.weight", table) == "blk.0.token_embd_norm.weight"
    assert usual_name("blk.*.attn_out.weight", table) == "blk.*.attn_output.weight"
