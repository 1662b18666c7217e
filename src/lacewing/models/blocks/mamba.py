"""Mamba-2 as a mixer of tokens: a projection, a short convolution, the selective scan, a gate, a norm of groups, a projection.

Reference: Dao and Gu, 2024 (arXiv 2405.21060); transformers mamba2.
"""

from __future__ import annotations

from lacewing.models.builder import Builder
from lacewing.models.config import MambaConfig
from lacewing.program.ops import Activation, Buffer, GatedActivation, Norm, Op, SelectiveScan, ShortConvolution, View
from lacewing.program.states import FixedState
from lacewing.program.stream_ops import AddScale


def mamba(m: MambaConfig, b: Builder, layer: int) -> None:
    """normed (T, D) to branch (T, D)."""
    name, scanned = f"blk.{layer}", Buffer("scanned", m.width).view()
    projected = Buffer("mamba", m.width + m.convolved + m.heads)
    gate, mixed = projected.view(0, m.width), projected.view(m.width, m.convolved)
    b.linear(b.normed, layer, ("ssm_in", projected.view()))
    _multiply(m, b, projected)
    state = b.state(FixedState((("conv", (m.kernel - 1, m.convolved)),)))
    bias = b.weight(f"{name}.ssm_conv1d.bias", m.convolved) if "ssm_conv1d" in b.config.biases else None
    b.ops += [
        ShortConvolution(mixed, b.weight(f"{name}.ssm_conv1d.weight", m.convolved, m.kernel), mixed, state, bias),
        Activation(mixed, mixed, "silu"),
        _scan(m, b, layer, mixed, projected.view(m.width + m.convolved), scanned),
    ]
    last: list[Op] = [GatedActivation(gate, scanned, scanned, "silu")]
    if m.normed:
        last.append(Norm(scanned, b.weight(f"{name}.ssm_norm.weight", m.width), scanned, b.config.eps, m.groups))
    b.ops += reversed(last) if m.gate_last else last
    b.linear(scanned, layer, ("ssm_out", b.branch))


def _multiply(m: MambaConfig, b: Builder, projected: Buffer) -> None:
    """The factors of the parts of what is projected, neighbours of one factor at once."""
    shared, start, runs = m.groups * m.states, 0, list[tuple[float, int]]()
    for factor, width in zip(m.factors, (m.width, m.width, shared, shared, m.heads), strict=bool(m.factors)):
        if runs and runs[-1][0] == factor:
            width += runs.pop()[1]
        runs.append((factor, width))
    for factor, width in runs:
        view, start = projected.view(start, width), start + width
        if factor != 1:
            b.ops.append(AddScale(view, None, view, factor=factor))


def _scan(m: MambaConfig, b: Builder, layer: int, mixed: View, dt: View, out: View) -> SelectiveScan:
    """Of x, b and c, which stand side by side in `mixed`."""
    shared = m.groups * m.states
    x, into, reading = (View(mixed.buffer, mixed.start + at, width) for at, width in (
        (0, m.width), (m.width, shared), (m.width + shared, shared)))  # fmt: skip
    decay, skip, bias = (b.weight(f"blk.{layer}.{name}", m.heads) for name in ("ssm_a.weight", "ssm_d.weight", "ssm_dt.bias"))
    state = b.state(FixedState((("scan", (m.heads, m.states, m.head_width)),)))
    return SelectiveScan(x, into, reading, dt, decay, skip, bias, out, state, m.heads, m.groups, m.limits, m.log_decay)
