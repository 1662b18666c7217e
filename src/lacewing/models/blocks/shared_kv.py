"""Attention with normed values, whose last layers may read the KV cache of earlier ones: Gemma 3n and 4."""

from __future__ import annotations

from lacewing.models.builder import Builder
from lacewing.program.ops import Attention, Norm, Rope, WriteKeysValues
from lacewing.program.states import PagedState, Part, Window


def shared_attention(b: Builder, layer: int) -> None:
    """normed (T, D) to branch (T, D)."""
    config, sizes, name = b.config, b.config.heads_of(layer), f"blk.{layer}"
    q_width, k_width = sizes.heads * sizes.width, sizes.key_heads * sizes.width
    qkv, attended = b.buffer("qkv", q_width + 2 * k_width), b.buffer("attended", q_width).view()
    q, k, v = qkv.view(0, q_width), qkv.view(q_width, k_width), qkv.view(q_width + k_width, k_width)
    window = config.windows[layer]
    rope = b.rope if window is None else b.local_rope
    if config.kv_layer(layer) == layer:
        same = config.keys_are_values and window is None
        b.linear(b.normed, layer, ("attn_q", q), ("attn_k", k), *([] if same else [("attn_v", v)]))
        if same:
            b.ops.append(Norm(k, None, v, config.eps, sizes.key_heads))
        b.norm(q, f"{name}.attn_q_norm", q, sizes.heads)
        b.norm(k, f"{name}.attn_k_norm", k, sizes.key_heads)
        if not same:
            b.ops.append(Norm(v, None, v, config.eps, sizes.key_heads))
        parts = tuple(Part(part, sizes.key_heads, sizes.width) for part in ("keys", "values"))
        state = b.kv_states[layer] = b.state(PagedState(parts, Window(window) if window else None))
        b.ops += [Rope(q, sizes.heads, rope), Rope(k, sizes.key_heads, rope), WriteKeysValues(k, v, state)]
    else:
        state = b.kv_states[config.kv_layer(layer)]
        b.linear(b.normed, layer, ("attn_q", q))
        b.norm(q, f"{name}.attn_q_norm", q, sizes.heads)
        b.ops.append(Rope(q, sizes.heads, rope))
    b.ops.append(Attention(q, attended, state, sizes.heads, sizes.key_heads, config.attention_scale, window))
    b.linear(attended, layer, ("attn_output", b.branch))
