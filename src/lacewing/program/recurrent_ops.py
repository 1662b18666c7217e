"""Ops whose state of constant size is carried from token to token: linear attention."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lacewing.program.operands import ChangesState, In, Op, Out, Weight


@dataclass(frozen=True)
class GatedDelta(Op):
    """Linear attention by the gated delta rule: for each token in turn, and each of H heads with its matrix S (Ck, Cv),

        S *= exp(rate * softplus(decay + bias));  S += outer(k, sigmoid(beta) * (v - k @ S));  out = scale * (q @ S)

    where q and k are brought to length 1 first: x / sqrt(sum(x^2) + eps).
    q, k (T, K * Ck); v, out (T, H * Cv); beta (T, H). decay (T, H), a number for each S, or (T, H * Ck), one for each of its rows
    (Kimi Delta Attention); bias has its width. rate (H,) is below zero, or with `log_rate` the logarithm of its negative.
    Head h reads key head h // (H / K), or if `tiled` h % K. `state` is a `FixedState` with the part "delta" (H, Ck, Cv), zeros
    before the first position. All in float32. Reference: Yang et al., arXiv 2412.06464; Kimi Linear, arXiv 2510.26692.
    """

    q: In
    k: In
    v: In
    decay: In
    beta: In
    out: Out
    rate: Weight
    bias: Weight
    state: ChangesState
    heads: int
    key_heads: int
    scale: float
    eps: float = 1e-6
    log_rate: bool = False
    tiled: bool = False

    @property
    def key_width(self) -> int:
        """Ck"""
        return self.k.width // self.key_heads

    @property
    def value_width(self) -> int:
        """Cv"""
        return self.v.width // self.heads

    @property
    def by_row(self) -> bool:
        """Whether every row of S has a decay of its own."""
        return self.decay.width != self.heads


@dataclass(frozen=True)
class SelectiveScan(Op):
    """A linear recurrence with decays that depend on the token, for each of H heads with groups of inputs: Mamba-2's mixer.

    With d = clamp(softplus(dt[h] + bias[h]), *limits) and S (N, P) the head's state, from zeros at the first position:
    S = exp(d * decay[h]) * S + b (d * x)^T, then out = S^T c + skip[h] * x; all in float32, token by token.
    x, out (T, H * P); b, c (T, G * N), heads share them in G equal runs; dt (T, H); decay, skip, bias (H,). `log_decay`: the weight
    holds ln(-decay). `state` is a `FixedState` with the part "scan" (H, N, P). out may be x. Reference: Dao and Gu, 2024.
    """

    x: In
    b: In
    c: In
    dt: In
    decay: Weight
    skip: Weight
    bias: Weight
    out: Out
    state: ChangesState
    heads: int
    groups: int
    limits: tuple[float, float] = (0.0, math.inf)
    log_decay: bool = False
