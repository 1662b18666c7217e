"""Grouped attention with rotary positions: the token mixer that most decoders share."""

from __future__ import annotations

from lacewing.models.builder import Builder
from lacewing.program.ops import (
    Attention,
    GatedActivation,
    Norm,
    Rope,
    ScaleByPosition,
    SplitHeads,
    View,
    WriteKeysValues,
)
from lacewing.program.states import Chunk, PagedState, Part, Window


def attention(b: Builder, layer: int) -> None:
    """normed (T, D) to branch (T, D)."""
    config, sizes = b.config, b.config.heads_of(layer)
    q_width, k_width = sizes.heads * sizes.width, sizes.key_heads * sizes.width
    qkv, attended = b.buffer("qkv", q_width + 2 * k_width), b.buffer("attended", q_width).view()
    q, k, v = qkv.view(0, q_width), qkv.view(q_width, k_width), qkv.view(q_width + k_width, k_width)
    gate = b.buffer("attention_gate", sizes.heads if config.head_gates else q_width).view()
    gates = (("attn_gate", gate),) if config.head_gates else ()
    if config.attention_gate:
        both = b.buffer("q_and_gate", 2 * q_width).view()
        b.linear(b.normed, layer, ("attn_q", both), ("attn_k", k), ("attn_v", v))
        b.ops.append(SplitHeads(both, (q, gate), sizes.heads))
    elif config.fused_qkv:
        b.linear(b.normed, layer, ("attn_qkv", qkv.view()), *gates)
    else:
        b.linear(b.normed, layer, ("attn_q", q), ("attn_k", k), ("attn_v", v), *gates)
    _positions(b, layer, q, k)
    scale_by_position(b, layer, q)
    window, chunk = config.windows[layer], config.chunks[layer] if config.chunks else None
    parts = tuple(Part(part, sizes.key_heads, sizes.width) for part in ("keys", "values"))
    state = b.state(PagedState(parts, Window(window) if window else Chunk(chunk) if chunk else None))
    sinks = b.weight(f"blk.{layer}.attn_sinks.weight", sizes.heads) if config.sinks else None
    scale, softcap = config.attention_scale, config.attention_softcap
    b.ops += [
        WriteKeysValues(k, v, state),
        Attention(q, attended, state, sizes.heads, sizes.key_heads, scale, window, softcap, chunk, sinks),
    ]
    if config.attention_gate or config.head_gates:
        b.ops.append(GatedActivation(gate, attended, attended, "sigmoid"))
    b.linear(attended, layer, ("attn_output", b.branch))


def _positions(b: Builder, layer: int, q: View, k: View) -> None:
    """The norms of queries and keys, and the rotation, in the order of the model."""
    config, sizes = b.config, b.config.heads_of(layer)
    if not config.late_qk_norm:
        _qk_norm(b, layer, q, k)
    if layer not in config.nope_layers:
        rope = b.rope if config.windows[layer] is None else b.local_rope
        b.ops += [Rope(q, sizes.heads, rope), Rope(k, sizes.key_heads, rope)]
        if config.qk_norm_after_rope:
            b.ops += [Norm(x, None, x, config.eps, heads) for x, heads in ((q, sizes.heads), (k, sizes.key_heads))]
    if config.late_qk_norm:
        _qk_norm(b, layer, q, k)


def _qk_norm(b: Builder, layer: int, q: View, k: View) -> None:
    """Of each head, or of all together."""
    config, sizes, name = b.config, b.config.heads_of(layer), f"blk.{layer}"
    if config.qk_norm:
        b.norm(q, f"{name}.attn_q_norm", q, sizes.heads, own=config.own_qk_norm, bias=False)
        b.norm(k, f"{name}.attn_k_norm", k, sizes.key_heads, own=config.own_qk_norm, bias=False)
    elif config.whole_qk_norm:
        b.norm(q, f"{name}.attn_q_norm", q)
        b.norm(k, f"{name}.attn_k_norm", k)


def scale_by_position(b: Builder, layer: int, q: View) -> None:
    """Attention temperature scaling of the queries, in the layers that have it."""
    scaling = b.config.attention_temperature
    if scaling is not None and (scaling.rotated_layers or layer in b.config.nope_layers):
        b.ops.append(ScaleByPosition(q, scaling.beta, scaling.length, scaling.offset))
