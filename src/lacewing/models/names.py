"""Hugging Face weight names to ours, which are GGUF's. One table; an architecture adds the rows in which it differs."""

from __future__ import annotations

import re
from collections.abc import Mapping

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
    "mlp.gate.e_score_correction_bias": "exp_probs_b.bias",
    "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
    "mlp.shared_experts.up_proj": "ffn_up_shexp",
    "mlp.shared_experts.down_proj": "ffn_down_shexp",
}
FUSED_NAMES = {"self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up"}

_GLOBAL = ("embed_tokens", "norm", "lm_head")  # the others belong to a layer
_PREFIX = re.compile(r"^(model\.language_model\.|language_model\.model\.|language_model\.|model\.)")
_LAYER = re.compile(r"^layers\.(\d{1,6})\.(.+)$")
_EXPERT = re.compile(r"(?<=\.experts\.)\d{1,5}(?=\.)")
_IGNORED = re.compile(
    r"(^|\.)(rotary_emb\.inv_freq|rotary_pos_emb\.inv_freq|masked_bias|attn\.bias)$"
    r"|^(model\.)?(vision_tower|vision_model|visual|multi_modal_projector|audio_tower)\."
)


def is_ignored(name: str) -> bool:
    """Whether a Hugging Face weight belongs to no text model (vision, sound) or is computed anyway."""
    return _IGNORED.search(name) is not None


def translate(name: str, table: Mapping[str, str]) -> str | None:
    """Our name of a Hugging Face weight, such as `blk.3.attn_q.weight`; None where the table lacks it.

    `*` in the table stands for the number of an expert. A weight without .weight or .bias is listed by its whole name.
    """
    inner = _PREFIX.sub("", name)
    match = _LAYER.match(inner)
    if match is not None and table.get(match.group(2), "").endswith((".weight", ".bias", ".weight_scale_inv")):
        return f"blk.{int(match.group(1))}.{table[match.group(2)]}"
    stem, _, kind = inner.rpartition(".")
    if kind not in ("weight", "bias", "weight_scale_inv"):
        return None
    match = _LAYER.match(stem)
    part = match.group(2) if match else stem
    expert = _EXPERT.search(part)
    ours = table.get(_EXPERT.sub("*", part))
    if ours is None or (match is None) != (part in _GLOBAL):
        return None
    if expert is not None:
        ours = ours.replace("*", str(int(expert.group())))
    return f"blk.{int(match.group(1))}.{ours}.{kind}" if match else f"{ours}.{kind}"
