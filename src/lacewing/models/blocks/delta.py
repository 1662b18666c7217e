"""Gated delta nets: linear attention whose state forgets and corrects itself, in place of attention in most layers of a model.

Reference: Yang et al., arXiv 2412.06464; transformers qwen3_next and qwen3_5.
"""

from __future__ import annotations

from functools import partial

from lacewing.models.blocks.attention import attention
from lacewing.models.blocks.decoder import forward_of, residual_block
from lacewing.models.builder import Block, Builder
from lacewing.models.config import DeltaConfig, ModelConfig
from lacewing.program.ops import Activation, Buffer, GatedActivation, GatedDelta, Norm, ShortConvolution, SplitHeads
from lacewing.program.states import FixedState


def hybrid_block(config: ModelConfig, layer: int) -> Block:
    """A delta net or attention, then feed-forward, each as the config says of the layer."""
    delta = config.delta
    mixer: Block = partial(gated_delta, delta) if delta is not None and delta.layers[layer] else attention
    return residual_block(mixer, forward_of(config, layer))


def gated_delta(delta: DeltaConfig, b: Builder, layer: int) -> None:
    """normed (T, D) to branch (T, D)."""
    config, name, heads = b.config, f"blk.{layer}", delta.heads
    keys, values = delta.key_heads * delta.key_width, heads * delta.value_width
    mixed, out = Buffer("delta_qkv", 2 * keys + values), Buffer("delta_out", values).view()
    q, k, v = mixed.view(0, keys), mixed.view(keys, keys), mixed.view(2 * keys, values)
    gate, beta, decay = (
        Buffer(f"delta_{part}", width).view() for part, width in (("gate", values), ("beta", heads), ("decay", heads))
    )
    whole, both = Buffer("delta_whole", 2 * keys + 2 * values).view(), Buffer("delta_gates", 2 * heads).view()
    inputs = [("ssm_in", whole)] if config.fused_delta else [("attn_qkv", mixed.view()), ("attn_gate", gate)]
    inputs += [("ssm_ba", both)] if delta.joint_gates else [("ssm_beta", beta), ("ssm_alpha", decay)]
    b.linear(b.normed, layer, *inputs)
    if config.fused_delta:
        b.ops.append(SplitHeads(whole, (q, k, v, gate), delta.key_heads))
    if delta.joint_gates:
        b.ops.append(SplitHeads(both, (beta, decay), delta.key_heads))
    convolution = b.state(FixedState((("conv", (delta.kernel - 1, mixed.width)),)))
    taps = b.weight(f"{name}.ssm_conv1d.weight", mixed.width, delta.kernel)
    state = b.state(FixedState((("delta", (heads, delta.key_width, delta.value_width)),)))
    rate, bias = b.weight(f"{name}.ssm_a.weight", heads), b.weight(f"{name}.ssm_dt.bias", heads)
    scale, norm = delta.key_width**-0.5, b.weight(f"{name}.ssm_norm.weight", delta.value_width)
    b.ops += [
        ShortConvolution(mixed.view(), taps, mixed.view(), convolution),
        Activation(mixed.view(), mixed.view(), "silu"),
        GatedDelta(q, k, v, decay, beta, out, rate, bias, state, heads, delta.key_heads, scale,
                   log_rate=delta.log_rate, tiled=delta.tiled),
        Norm(out, norm, out, config.eps, heads),
        GatedActivation(gate, out, out, "silu"),
    ]  # fmt: skip
    b.linear(out, layer, ("ssm_out", b.branch))
