"""Ops of models whose tokens bring more than one embedding, or whose residual stream is several: Gemma 3n and 4.

S residual streams of a token stand side by side, (T, S * D).
"""

from __future__ import annotations

from dataclasses import dataclass

from lacewing.program.operands import In, InOut, Op, Out, Weight, check_kinds


@dataclass(frozen=True)
class Lookup(Op):
    """out[t] = scale * table[tokens[t]]; table (R, width). An id without a row, below zero or from R on, takes row `other`.

    A token reads one row of what may be gigabytes: a table stays in its file, mapped, whatever the residency and the device.
    """

    table: Weight
    out: Out
    scale: float = 1.0
    other: int = 0


@dataclass(frozen=True)
class AddScale(Op):
    """out = (x + add) * factor * weight, column by column; None: 0 for add, 1 for weight. out may be x or add.

    The width of add divides that of x, along which it is repeated. weight (add.width,), or (1,) for all columns.
    """

    x: In
    add: In | None
    out: Out
    weight: Weight | None = None
    factor: float = 1.0


@dataclass(frozen=True)
class AltUpPredict(Op):
    """Streams x_i += sum over j of c[i * S + j] * x_j, all of the old values, in place; c (S * S,) = weight @ tanh(scale * router).

    x (T, S * D), router (T, S), weight (S * S, S). The predict step of alternating updates (AltUp, arXiv 2301.13310).
    """

    x: InOut
    router: In
    weight: Weight
    scale: float = 1.0


@dataclass(frozen=True)
class AltUpCorrect(Op):
    """Streams x_i += (1 + c[i]) * (new - x_active), with the old x_active, in place; c (S,) = weight @ tanh(scale * router).

    x (T, S * D), new (T, D), router (T, S), weight (S, S). The correct step of alternating updates.
    """

    x: InOut
    router: In
    new: In
    weight: Weight
    active: int = 0
    scale: float = 1.0


@dataclass(frozen=True)
class MatchMagnitude(Op):
    """x *= sqrt(mean(like^2) / max(mean(x^2), least)), in place; x, like (T, D)."""

    x: InOut
    like: In
    least: float = 1e-5


@dataclass(frozen=True)
class GaussianTopK(Op):
    """x = max(0, x - mean(x) - cutoff * std(x)), in place, over the whole width: if x is normal, the share of values above the
    quantile `cutoff` of the standard normal distribution stays. Activation sparsity of Gemma 3n."""

    x: InOut
    cutoff: float


check_kinds()
