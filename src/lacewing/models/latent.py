"""Multi-head latent attention in the absorbed form: one key head, whose first values are the values.

The up-projection of keys is applied to the queries and that of values to what attention gives, so that only `rank` + `rope`
numbers a position are stored. Reference: the DeepSeek-V2 paper; transformers deepseek_v3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lacewing.formats.checkpoint import TensorInfo
from lacewing.models.config import LatentConfig
from lacewing.models.keys import Keys
from lacewing.program.ops import Attention, Buffer, HeadLinear, Rope, WriteKeysValues

if TYPE_CHECKING:
    from lacewing.models.blocks import Builder


def gguf_latent(keys: Keys, tensors: Mapping[str, TensorInfo]) -> LatentConfig:
    """Newer files have attn_k_b and attn_v_b and lengths with _mla; older ones attn_kv_b and plain lengths."""
    rope = keys.integer("rope.dimension_count", high=2**12)
    head = keys.integer("attention.key_length_mla", keys.integer("attention.key_length"), high=2**16)
    value = keys.integer("attention.value_length_mla", keys.integer("attention.value_length"), high=2**16)
    if head <= rope:
        raise keys.error("attention.key_length", f"is {head}, no more than the {rope} values that are rotated")
    return LatentConfig(
        q_rank=keys.integer("attention.q_lora_rank", 0, low=0) or None,
        rank=keys.integer("attention.kv_lora_rank"),
        nope=head - rope,
        rope=rope,
        value=value,
        eps=keys.number("attention.layer_norm_rms_epsilon", low=1e-20, high=1),
        transposed_keys=any(name.endswith(".attn_kv_b.weight") for name in tensors),
    )


def huggingface_latent(keys: Keys) -> LatentConfig:
    nope, rope, value = (keys.integer(name, high=2**16) for name in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    q_rank, rank = keys.optional_integer("q_lora_rank", high=2**24), keys.integer("kv_lora_rank")
    return LatentConfig(q_rank, rank, nope, rope, value, eps=1e-6, transposed_keys=True)  # the class's own eps, not the config's


def latent_attention(b: Builder, latent: LatentConfig, layer: int) -> None:
    """normed (T, D) to branch (T, D)."""
    config, name = b.config, f"blk.{layer}"
    heads, rank, head = config.heads, latent.rank, latent.nope + latent.rope
    q, keys = Buffer("q", heads * head).view(), Buffer("latent", rank + latent.rope).view()
    absorbed = Buffer("absorbed", heads * (rank + latent.rope)).view()
    attended, values = Buffer("attended", heads * rank).view(), Buffer("values", heads * latent.value).view()
    compressed, turned = keys.buffer.view(0, rank), keys.buffer.view(rank, latent.rope)
    if latent.q_rank is None:
        b.linear(b.normed, layer, ("attn_q", q), ("attn_kv_a_mqa", keys))
    else:
        small = Buffer("q_latent", latent.q_rank).view()
        b.linear(b.normed, layer, ("attn_q_a", small), ("attn_kv_a_mqa", keys))
        b.norm(small, f"{name}.attn_q_a_norm", small, eps=latent.eps)
        b.linear(small, layer, ("attn_q_b", q))
    b.norm(compressed, f"{name}.attn_kv_a_norm", compressed, eps=latent.eps)
    keys_shape = (latent.nope, rank) if latent.transposed_keys else (rank, latent.nope)
    b.ops += [
        Rope(q, heads, b.rope, latent.nope),
        Rope(turned, 1, b.rope),
        *b.temperature(q, layer),
        HeadLinear(q, b.weight(f"{name}.attn_k_b.weight", heads, *keys_shape), absorbed, heads, latent.transposed_keys),
        WriteKeysValues(keys, None, layer),
        Attention(absorbed, attended, layer, heads, 1, config.attention_scale),
        HeadLinear(attended, b.weight(f"{name}.attn_v_b.weight", heads, latent.value, rank), values, heads),
    ]
    b.linear(values, layer, ("attn_output", b.branch))
