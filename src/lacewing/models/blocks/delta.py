"""Gated delta nets: linear attention whose state forgets and corrects itself, in place of attention in most layers of a model.

References: Yang et al., arXiv 2412.06464; transformers qwen3_next and qwen3_5. Kimi delta attention, which forgets each row of the
state at a rate of its own: arXiv 2510.26692; transformers kimi_linear.
"""

from __future__ import annotations

from functools import partial

from lacewing.models.blocks.decoder import forward_of, residual_block, standard_block
from lacewing.models.builder import Block, Builder
from lacewing.models.config import DeltaConfig, ModelConfig
from lacewing.program.ops import Activation, Buffer, GatedActivation, GatedDelta, Norm, ShortConvolution, SplitHeads, View
from lacewing.program.states import FixedState


def hybrid_block(config: ModelConfig, layer: int) -> Block:
    """A delta net or attention, then feed-forward, each as the config says of the layer."""
    delta = config.delta
    if delta is None or not delta.layers[layer]:
        return standard_block(config, layer)
    mixer: Block = partial(kimi_delta if delta.gate_rank else gated_delta, delta)
    return residual_block(mixer, forward_of(config, layer))


def gated_delta(delta: DeltaConfig, b: Builder, layer: int) -> None:
    """normed (T, D) to branch (T, D)."""
    config, heads, (q, k, v) = b.config, delta.heads, _mixed(delta)
    gate, beta, decay = (
        Buffer(f"delta_{part}", width).view() for part, width in (("gate", v.width), ("beta", heads), ("decay", heads))
    )
    whole, both = Buffer("delta_whole", q.buffer.width + v.width).view(), Buffer("delta_gates", 2 * heads).view()
    inputs = [("ssm_in", whole)] if config.fused_delta else [("attn_qkv", q.buffer.view()), ("attn_gate", gate)]
    inputs += [("ssm_ba", both)] if delta.joint_gates else [("ssm_beta", beta), ("ssm_alpha", decay)]
    b.linear(b.normed, layer, *inputs)
    if config.fused_delta:
        b.ops.append(SplitHeads(whole, (q, k, v, gate), delta.key_heads))
    if delta.joint_gates:
        b.ops.append(SplitHeads(both, (beta, decay), delta.key_heads))
    out = _recurrence(delta, b, layer, decay, beta)
    b.ops.append(GatedActivation(gate, out, out, "silu"))
    b.linear(out, layer, ("ssm_out", b.branch))


def kimi_delta(delta: DeltaConfig, b: Builder, layer: int) -> None:
    """normed (T, D) to branch (T, D). The decay of each row and the gate of each value come through small vectors."""
    q, k, v = _mixed(delta)
    small = Buffer("delta_small", 2 * delta.gate_rank)
    forget, open_by = small.view(0, delta.gate_rank), small.view(delta.gate_rank, delta.gate_rank)
    widths = (("gate", v.width), ("beta", delta.heads), ("decay", delta.heads * delta.key_width))
    gate, beta, decay = (Buffer(f"delta_{part}", width).view() for part, width in widths)
    inputs = (("attn_q", q), ("attn_k", k), ("attn_v", v), ("ssm_beta", beta), ("ssm_f_a", forget), ("ssm_g_a", open_by))
    b.linear(b.normed, layer, *inputs)
    b.linear(forget, layer, ("ssm_f_b", decay))
    b.linear(open_by, layer, ("ssm_g_b", gate))
    out = _recurrence(delta, b, layer, decay, beta)
    b.ops.append(GatedActivation(gate, out, out, "sigmoid"))
    b.linear(out, layer, ("attn_output", b.branch))


def _mixed(delta: DeltaConfig) -> tuple[View, View, View]:
    """q, k (T, K * Ck) and v (T, H * Cv), side by side."""
    keys, values = delta.key_heads * delta.key_width, delta.heads * delta.value_width
    mixed = Buffer("delta_qkv", 2 * keys + values)
    return mixed.view(0, keys), mixed.view(keys, keys), mixed.view(2 * keys, values)


def _recurrence(delta: DeltaConfig, b: Builder, layer: int, decay: View, beta: View) -> View:
    """Of q, k and v: the convolution, the delta rule and the norm of each head, (T, H * Cv)."""
    name, heads, (q, k, v) = f"blk.{layer}", delta.heads, _mixed(delta)
    mixed, out = q.buffer.view(), Buffer("delta_out", v.width).view()
    convolution = b.state(FixedState((("conv", (delta.kernel - 1, mixed.width)),)))
    taps = b.weight(f"{name}.ssm_conv1d.weight", mixed.width, delta.kernel)
    state = b.state(FixedState((("delta", (heads, delta.key_width, delta.value_width)),)))
    rate, bias = b.weight(f"{name}.ssm_a.weight", heads), b.weight(f"{name}.ssm_dt.bias", decay.width)
    scale, norm = delta.key_width**-0.5, b.weight(f"{name}.ssm_norm.weight", delta.value_width)
    b.ops += [
        ShortConvolution(mixed, taps, mixed, convolution),
        Activation(mixed, mixed, "silu"),
        GatedDelta(q, k, v, decay, beta, out, rate, bias, state, heads, delta.key_heads, scale,
                   log_rate=delta.log_rate, tiled=delta.tiled),
        Norm(out, norm, out, b.config.eps, heads),
    ]  # fmt: skip
    return out
