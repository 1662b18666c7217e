"""Feed-forward blocks: one gated network for all tokens, or a mixture of experts that a router chooses from."""

from __future__ import annotations

from lacewing.models.builder import Builder
from lacewing.models.config import MixtureConfig
from lacewing.program.ops import (
    Activation,
    Buffer,
    ClampedActivation,
    Combine,
    ExpertLinear,
    GatedActivation,
    LimitedActivation,
    Op,
    Route,
    View,
)
from lacewing.program.stream_ops import AddScale, GaussianTopK


def feed_forward(b: Builder, layer: int) -> None:
    """normed (T, D) to branch (T, D)."""
    width = b.config.feed_forward_of(layer)
    if not b.config.gated:
        _plain_feed_forward(b, layer)
        return
    both = b.buffer("gate_up", 2 * width)
    gate, up = both.view(0, width), both.view(width, width)
    if b.config.fused_gate_up:
        b.linear(b.normed, layer, ("ffn_up", both.view()))
    else:
        b.linear(b.normed, layer, ("ffn_gate", gate), ("ffn_up", up))
    if b.config.multipliers.gate != 1:
        b.ops.append(AddScale(gate, None, gate, factor=b.config.multipliers.gate))
    cutoff = b.config.cutoffs[layer] if b.config.cutoffs else None
    if cutoff is not None:
        b.ops.append(GaussianTopK(gate, cutoff))
    b.ops.append(_gated(b, layer, gate, up))
    b.linear(gate, layer, ("ffn_down", b.branch))


def _gated(b: Builder, layer: int, gate: View, up: View) -> Op:
    """The activation of a feed-forward that every token goes through."""
    limit = b.config.limits[layer] if b.config.limits else None
    return GatedActivation(gate, up, gate, b.config.activation) if limit is None else LimitedActivation(gate, up, gate, limit)


def _plain_feed_forward(b: Builder, layer: int) -> None:
    """Without a gate."""
    up = b.buffer("up", b.config.feed_forward_of(layer)).view()
    b.linear(b.normed, layer, ("ffn_up", up))
    b.ops.append(Activation(up, up, b.config.activation, b.config.xielu[layer] if b.config.xielu else ()))
    b.linear(up, layer, ("ffn_down", b.branch))


def mixture_of_experts(m: MixtureConfig, b: Builder, layer: int) -> None:
    """normed (T, D) to branch (T, D)."""
    scores = Buffer("scores", m.experts).view()
    b.linear(b.normed, layer, ("ffn_gate_inp", scores))
    chosen_experts(m, b, layer, scores)


def chosen_experts(m: MixtureConfig, b: Builder, layer: int, scores: View) -> None:
    """The experts that the scores (T, E) of a router choose, and the shared ones: normed (T, D) to branch (T, D)."""
    width, wide = b.config.width, m.active * m.width
    ids = Buffer("expert_ids", m.active).view()
    weights, each = Buffer("expert_weights", m.active).view(), Buffer("experts", 2 * wide)
    gate, up, outs = each.view(0, wide), each.view(wide, wide), Buffer("expert_outs", m.active * width).view()
    bias = b.weight(f"blk.{layer}.exp_probs_b.bias", m.experts) if m.bias else None
    scales = b.weight(f"blk.{layer}.ffn_down_exps.scale", m.experts) if m.expert_scales else None
    route = Route(
        scores, ids, weights, m.gating, bias, m.groups, m.groups_used, m.group_best, m.renormalise, m.scale, layer, scales, m.jitter
    )
    factor = weights if m.weight_on_input else None
    names = ("ffn_gate_up_exps",) if m.one_stack else ("ffn_gate_exps", "ffn_up_exps")
    rows = (2 * m.width,) if m.one_stack else (m.width, m.width)
    stacks, biases = _stacks(b, m, layer, names, rows, width)
    b.ops += [
        route,
        ExpertLinear(b.normed, ids, stacks, (gate, up), biases, factor, transposed=m.transposed, interleaved=m.interleaved),
        _activation(m, layer, gate, up, b.config.activation),
    ]
    stacks, biases = _stacks(b, m, layer, ("ffn_down_exps",), (width,), m.width)
    b.ops.append(ExpertLinear(gate, ids, stacks, (outs,), biases, separate=True, transposed=m.transposed))
    if m.shared_width:
        _shared_experts(b, m, layer)
    shared = b.branch if m.shared_width else None
    b.ops.append(Combine(outs, None if m.weight_on_input else weights, b.branch, m.active, shared))


def _stacks(
    b: Builder, m: MixtureConfig, layer: int, names: tuple[str, ...], rows: tuple[int, ...], width: int
) -> tuple[tuple[str, ...], tuple[str | None, ...]]:
    """The stacked weights of experts, from `width` to `rows` values, and their biases."""
    pairs = list(zip(names, rows, strict=True))
    shapes = [(width, count) if m.transposed else (count, width) for count in rows]
    weights = tuple(b.weight(f"blk.{layer}.{name}.weight", m.experts, *shape) for name, shape in zip(names, shapes, strict=True))
    if not m.expert_biases:
        return weights, ()
    return weights, tuple(b.weight(f"blk.{layer}.{name}.bias", m.experts, count) for name, count in pairs)


def _activation(m: MixtureConfig, layer: int, gate: View, up: View, kind: str) -> Op:
    limit = m.limits[layer] if m.limits else None
    if limit is not None:
        return LimitedActivation(gate, up, gate, limit)
    return ClampedActivation(gate, up, gate, *m.clamp) if m.clamp else GatedActivation(gate, up, gate, kind)


def _shared_experts(b: Builder, m: MixtureConfig, layer: int) -> None:
    """One ordinary feed-forward, which every token goes through."""
    both = Buffer("shared_experts", 2 * m.shared_width)
    gate, up = both.view(0, m.shared_width), both.view(m.shared_width, m.shared_width)
    if m.fused_shared:
        b.linear(b.normed, layer, ("ffn_up_shexp", both.view()))
    else:
        b.linear(b.normed, layer, ("ffn_gate_shexp", gate), ("ffn_up_shexp", up))
    b.ops.append(_gated(b, layer, gate, up))
    b.linear(gate, layer, ("ffn_down_shexp", b.branch))
    if m.shared_gate:
        share = Buffer("shared_gate", 1).view()
        b.linear(b.normed, layer, ("ffn_gate_inp_shexp", share))
        b.ops.append(GatedActivation(share, b.branch, b.branch, "sigmoid"))
