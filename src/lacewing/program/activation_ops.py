"""The kinds of operation that treat every column alike: activations, single and gated. Axes as in `ops.py`."""

from __future__ import annotations

from dataclasses import dataclass

from lacewing.program.operands import In, Op, Out


@dataclass(frozen=True)
class GatedActivation(Op):
    """out = activation(gate) * up; `activation` is "silu", "gelu_tanh", "sigmoid" or "none" (the plain product).

    out may be gate, or up. A gate of fewer values, which divide the width, has each of them for an equal part of up: one for
    every head, or one for all.
    """

    gate: In
    up: In
    out: Out
    activation: str = "silu"


@dataclass(frozen=True)
class Activation(Op):
    """out = function(x), value by value; out may be x.

    "relu2" is max(x, 0)^2, "gelu" x * (1 + erf(x / sqrt(2))) / 2, "gelu_tanh" its approximation by tanh, "softplus" ln(1 + e^x).
    "xielu" (arXiv 2411.13010) has four constants, p, n, beta and eps: p x^2 + beta x above 0, n (e^min(x, eps) - 1 - x) + beta x
    below.
    """

    x: In
    out: Out
    function: str
    constants: tuple[float, ...] = ()


@dataclass(frozen=True)
class ClampedActivation(Op):
    """out = g * sigmoid(alpha * g) * (u + 1) with g = min(gate, limit), u = clamp(up, -limit, limit). out may be gate."""

    gate: In
    up: In
    out: Out
    alpha: float
    limit: float


@dataclass(frozen=True)
class LimitedActivation(Op):
    """out = min(silu(gate), limit) * clamp(up, -limit, limit): the limit comes behind the activation. out may be gate or up.

    Step 3.5 of StepFun.
    """

    gate: In
    up: In
    out: Out
    limit: float
