"""Multi-head latent attention in the absorbed form: one key head, whose first values are the values.

The up-projection of keys is applied to the queries and that of values to what attention gives, so that only `rank` + `rope`
numbers a position are stored. Reference: the DeepSeek-V2 paper; transformers deepseek_v3.
"""

from __future__ import annotations

from lacewing.models.blocks.attention import scale_by_position
from lacewing.models.builder import Builder
from lacewing.models.config import LatentConfig
from lacewing.program.ops import Attention, Buffer, HeadLinear, Rope, WriteKeysValues
from lacewing.program.states import PagedState, Part


def latent_attention(latent: LatentConfig, b: Builder, layer: int) -> None:
    """normed (T, D) to branch (T, D)."""
    config, name = b.config, f"blk.{layer}"
    heads, rank, head = config.heads, latent.rank, latent.nope + latent.rope
    q, keys = Buffer("q", heads * head).view(), Buffer("latent", rank + latent.rope).view()
    absorbed = Buffer("absorbed", heads * (rank + latent.rope)).view()
    attended, values = Buffer("attended", heads * rank).view(), Buffer("values", heads * latent.value).view()
    compressed, rotated = keys.buffer.view(0, rank), keys.buffer.view(rank, latent.rope)
    if latent.q_rank is None:
        b.linear(b.normed, layer, ("attn_q", q), ("attn_kv_a_mqa", keys))
    else:
        small = Buffer("q_latent", latent.q_rank).view()
        b.linear(b.normed, layer, ("attn_q_a", small), ("attn_kv_a_mqa", keys))
        b.norm(small, f"{name}.attn_q_a_norm", small, eps=latent.eps)
        b.linear(small, layer, ("attn_q_b", q))
    b.norm(compressed, f"{name}.attn_kv_a_norm", compressed, eps=latent.eps)
    keys_shape = (latent.nope, rank) if latent.transposed_keys else (rank, latent.nope)
    b.ops += [Rope(q, heads, b.rope, latent.nope), Rope(rotated, 1, b.rope)]
    scale_by_position(b, layer, q)
    state = b.state(PagedState((Part("keys", 1, keys.width),), latent=True))
    b.ops += [
        HeadLinear(q, b.weight(f"{name}.attn_k_b.weight", heads, *keys_shape), absorbed, heads, latent.transposed_keys),
        WriteKeysValues(keys, None, state),
        Attention(absorbed, attended, state, heads, 1, config.attention_scale),
        HeadLinear(attended, b.weight(f"{name}.attn_v_b.weight", heads, latent.value, rank), values, heads),
    ]
    b.linear(values, layer, ("attn_output", b.branch))
