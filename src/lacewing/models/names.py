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
FUSED_NAMES = {"self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up"}

_GLOBAL = ("embed_tokens", "norm", "lm_head")  # the others belong to a layer
_PREFIX = re.compile(r"^(model\.language_model\.|language_model\.model\.|language_model\.|model\.)")
_LAYER = re.compile(r"^layers\.(\d{1,6})\.(.+)$")
_IGNORED = re.compile(
    r"(^|\.)(rotary_emb\.inv_freq|rotary_pos_emb\.inv_freq|masked_bias|attn\.bias)$"
    r"|^(model\.)?(vision_tower|vision_model|visual|multi_modal_projector|audio_tower)\."
)


def is_ignored(name: str) -> bool:
    """Whether a Hugging Face weight belongs to no text model (vision, sound) or is computed anyway."""
    return _IGNORED.search(name) is not None


def translate(name: str, table: Mapping[str, str]) -> str | None:
    """Our name of a Hugging Face weight, such as `blk.3.attn_q.weight`; None where the table lacks it."""
    stem, _, kind = _PREFIX.sub("", name).rpartition(".")
    if kind not in ("weight", "bias"):
        return None
    match = _LAYER.match(stem)
    part = match.group(2) if match else stem
    ours = table.get(part)
    if ours is None or (match is None) != (part in _GLOBAL):
        return None
    return f"blk.{int(match.group(1))}.{ours}.{kind}" if match else f"{ours}.{kind}"
