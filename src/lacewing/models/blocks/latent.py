"""Multi-head latent attention in the absorbed form: one key head, whose first values are the values.

The up-projection of keys is applied to the queries and that of values to what attention gives, so that only `rank` + `rope`
numbers a position are stored. Reference: the DeepSeek-V2 paper; transformers deepseek_v3. With an indexer, attention sees the
positions that it chooses: DeepSeek-V3.2, transformers deepseek_v32 and glm_moe_dsa.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lacewing.models.blocks.attention import scale_by_position
from lacewing.models.builder import Builder
from lacewing.models.config import IndexerConfig, LatentConfig
from lacewing.program.ops import Attention, Buffer, HeadLinear, Norm, Rope, SelectKeys, View, WriteKeysValues
from lacewing.program.states import PagedState, Part

INDEX_NORM_EPS = 1e-6


def latent_attention(latent: LatentConfig, b: Builder, layer: int) -> None:
    """normed (T, D) to branch (T, D)."""
    config, name = b.config, f"blk.{layer}"
    heads, rank, head = config.heads, latent.rank, latent.nope + latent.rope
    q, keys = Buffer("q", heads * head).view(), Buffer("latent", rank + latent.rope).view()
    absorbed = Buffer("absorbed", heads * (rank + latent.rope)).view()
    attended, values = Buffer("attended", heads * rank).view(), Buffer("values", heads * latent.value).view()
    compressed, rotated = keys.buffer.view(0, rank), keys.buffer.view(rank, latent.rope)
    indexer = latent.indexer
    chosen = None if indexer is None else Buffer("chosen", min(indexer.top_k, b.context)).view()  # here, or in a layer before
    index = _Index.of(indexer) if indexer is not None and indexer.layers[layer] else None
    if latent.q_rank is None:
        b.linear(b.normed, layer, ("attn_q", q), ("attn_kv_a_mqa", keys))
    else:
        small = Buffer("q_latent", latent.q_rank).view()
        b.linear(b.normed, layer, ("attn_q_a", small), ("attn_kv_a_mqa", keys), *(index.from_normed if index else ()))
        b.norm(small, f"{name}.attn_q_a_norm", small, eps=latent.eps)
        b.linear(small, layer, ("attn_q_b", q), *(index.from_small if index else ()))
    if index is not None:
        weight, bias = (b.weight(f"{name}.indexer.k_norm.{kind}", index.keys.width) for kind in ("weight", "bias"))
        b.ops.append(Norm(index.keys, weight, index.keys, INDEX_NORM_EPS, bias=bias, centred=True))
    b.norm(compressed, f"{name}.attn_kv_a_norm", compressed, eps=latent.eps)
    keys_shape = (latent.nope, rank) if latent.transposed_keys else (rank, latent.nope)
    if layer not in config.nope_layers:
        b.ops += [Rope(q, heads, b.rope, latent.nope), Rope(rotated, 1, b.rope)]
    scale_by_position(b, layer, q)
    if index is not None and indexer is not None:
        turn = replace(b.rope, adjacent=indexer.adjacent_rope)
        b.ops += [Rope(index.q, indexer.heads, turn), Rope(index.keys, 1, turn)]
    parts = (Part("keys", 1, keys.width), *((Part("index", 1, index.keys.width),) if index else ()))
    state = b.state(PagedState(parts, latent=True))
    b.ops += [
        HeadLinear(q, b.weight(f"{name}.attn_k_b.weight", heads, *keys_shape), absorbed, heads, latent.transposed_keys),
        WriteKeysValues(keys, None, state, index.keys if index else None),
    ]
    if index is not None and indexer is not None and chosen is not None:
        b.ops.append(SelectKeys(index.q, index.weights, chosen, state, indexer.heads))
    b.ops += [
        Attention(absorbed, attended, state, heads, 1, config.attention_scale, chosen=chosen),
        HeadLinear(attended, b.weight(f"{name}.attn_v_b.weight", heads, latent.value, rank), values, heads),
    ]
    b.linear(values, layer, ("attn_output", b.branch))


@dataclass(frozen=True)
class _Index:
    """What an indexer makes of a token."""

    q: View
    keys: View
    weights: View

    @staticmethod
    def of(indexer: IndexerConfig) -> _Index:
        q, keys = Buffer("index_q", indexer.heads * indexer.width).view(), Buffer("index_keys", indexer.width).view()
        return _Index(q, keys, Buffer("index_weights", indexer.heads).view())

    @property
    def from_normed(self) -> tuple[tuple[str, View], ...]:
        """Products of the layer's input."""
        return ("indexer.attn_k", self.keys), ("indexer.proj", self.weights)

    @property
    def from_small(self) -> tuple[tuple[str, View], ...]:
        """Of the vector that queries are made of."""
        return (("indexer.attn_q_b", self.q),)
