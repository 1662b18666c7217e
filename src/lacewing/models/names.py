"""Hugging Face weight names to ours, which are GGUF's. One table; an architecture adds the rows in which it differs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

STANDARD_NAMES = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
QK_NORM_NAMES = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
POST_NORM_NAMES = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
EXPERT_NAMES = {
    "mlp.gate": "ffn_gate_inp",
    "mlp.experts.*.gate_proj": "ffn_gate_exps.*",
    "mlp.experts.*.up_proj": "ffn_up_exps.*",
    "mlp.experts.*.down_proj": "ffn_down_exps.*",
    "mlp.experts.gate_up_proj": "ffn_gate_up_exps.weight",
    "mlp.experts.down_proj": "ffn_down_exps.weight",
    "mlp.experts.gate_up_proj_scale_inv": "ffn_gate_up_exps.weight_scale_inv",
    "mlp.experts.down_proj_scale_inv": "ffn_down_exps.weight_scale_inv",
    "mlp.gate.e_score_correction_bias": "exp_probs_b.bias",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
    "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
    "mlp.shared_experts.up_proj": "ffn_up_shexp",
    "mlp.shared_experts.down_proj": "ffn_down_shexp",
}
FUSED_NAMES = {"self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up"}

PER_LAYER_NAMES = {
    "embed_tokens_per_layer": "per_layer_token_embd",
    "per_layer_model_projection": "per_layer_model_proj",
    "per_layer_projection_norm": "per_layer_proj_norm",
    "per_layer_input_gate": "inp_gate",
    "per_layer_projection": "proj",
    "post_per_layer_input_norm": "post_norm",
}
_STREAMS = [f"{part}.{stream}" for part in ("altup_projections", "altup_unembed_projections") for stream in range(15)]
_GLOBAL = (
    "embed_tokens",
    "word_embeddings",
    "embeddings",
    "norm",
    "norm_f",
    "embedding_norm",
    "final_layernorm",
    "lm_head",
    *list(PER_LAYER_NAMES)[:3],
    *_STREAMS,
)  # the others belong to a layer
_KINDS = (".weight", ".bias", ".weight_scale_inv")
_WHOLE_KINDS = (*_KINDS, ".scale")  # of names that the table has as a whole
_SCALES = {"weight_scale": "weight_scale_inv", "qscale_weight": "weight_scale_inv"}  # other names of the factors of a weight
_PLACE = re.compile(
    r"(?:model\.language_model\.|language_model\.model\.|language_model\.|model\.backbone\.|backbone\.|model\.)?"
    r"(?:layers\.(\d{1,6})\.)?(.*)",
    re.DOTALL,
)
_OURS = re.compile(r"(?<![\w.])(?:blk\.(\d+)\.)?([a-z]\w*(?:\.[a-z]\w*)?)\.(weight_scale_inv|weight|bias|scale)(?!\w)")
_EXPERT = re.compile(r"(?<=\.experts\.)\d{1,5}(?=\.)")
_COMPUTED = (".rotary_emb.inv_freq", ".rotary_pos_emb.inv_freq", ".masked_bias", ".attn.bias")
# factors that others quantise activations, keys and values by, which stay floats here
_OF_ACTIVATIONS = (
    ".activation_scale", "_proj_activation_scale", ".input_scale", ".output_scale", ".qscale_act", ".k_scale", ".v_scale",
)  # fmt: skip
_OTHER_PARTS = re.compile(  # the first two: of files that Ollama made
    r"(?:model\.)?(?:(v|mm|vision_tower|vision_model|visual|vision_encoder|multi_modal_projector|vit_large_projector|embed_vision|vision_embedder)"
    r"|(a|audio_tower|embed_audio)|(mtp(?:_\w+)?))\."
)
PREDICTION = "multi-token prediction"


def is_ignored(name: str) -> bool:
    """Whether a Hugging Face weight is computed anyway, or says how others store activations."""
    return name.endswith(_COMPUTED) or name.endswith(_OF_ACTIVATIONS)


def part_of(name: str) -> str | None:
    """ "vision" or "audio" for a weight of these parts of a multimodal checkpoint, PREDICTION for one of layers that predict tokens
    further ahead, None for one of the language model."""
    match = _OTHER_PARTS.match(name)
    return None if match is None else ("vision", "audio", PREDICTION)[(match.lastindex or 1) - 1]


def usual_name(name: str, table: Mapping[str, str]) -> str:
    """The usual name of a GGUF weight; the table has what some files call otherwise, such as "blk.*.attn_out.weight"."""
    block, _, rest = name.partition(".")
    layer, _, part = rest.partition(".")
    pattern = f"blk.*.{part}" if block == "blk" else name
    return table.get(pattern, name).replace("*", layer)


def in_the_words_of_a_directory(text: str, table: Mapping[str, str], names: Iterable[str]) -> str:
    """A message with Hugging Face names in place of ours, of the kind that the checkpoint has, whose `names` they are."""
    embedding = next((name for name in names if name.endswith("embed_tokens.weight")), "model.embed_tokens.weight")
    prefix = embedding.removesuffix("embed_tokens.weight")
    seen = {_EXPERT.sub("*", _PLACE.match(name).group(2).removesuffix(".weight")) for name in names}  # type: ignore[union-attr]
    ordered = sorted(table.items(), key=lambda row: row[0] in seen)  # of two names for one weight the later holds
    theirs = {ours.removesuffix(".*"): name for name, ours in ordered}

    def renamed(match: re.Match[str]) -> str:
        layer, part, kind = match.groups()
        one, whole = theirs.get(part), theirs.get(f"{part}.{kind}")
        name = whole if one is None or (whole in seen and one not in seen) else one
        if name is None:
            return match[0]
        whole = "" if name == whole else f".{kind}"
        return f"{prefix}layers.{layer}.{name}{whole}" if layer else f"{'' if name == 'lm_head' else prefix}{name}{whole}"

    return _OURS.sub(renamed, text)


def translate(name: str, table: Mapping[str, str]) -> str | None:
    """Our name of a Hugging Face weight, such as `blk.3.attn_q.weight`; None where the table lacks it.

    `*` in the table stands for the number of an expert. A weight without .weight or .bias is listed by its whole name.
    """
    layer, rest = _PLACE.match(name).groups()  # type: ignore[union-attr]  # matches any line
    block = "" if layer is None else f"blk.{int(layer)}."
    whole = table.get(rest, "")
    if block and whole.endswith(_WHOLE_KINDS):
        return block + whole
    part, _, kind = rest.rpartition(".")
    kind = _SCALES.get(kind, kind)
    if f".{kind}" not in _KINDS:
        return None
    expert = _EXPERT.search(part) if ".experts." in part else None
    ours = table.get(part if expert is None else f"{part[: expert.start()]}*{part[expert.end() :]}")
    if ours is None or (block == "") != (part in _GLOBAL):
        return None
    if expert is not None:
        ours = ours.replace("*", str(int(expert.group())))
    return f"{block}{ours}.{kind}"
