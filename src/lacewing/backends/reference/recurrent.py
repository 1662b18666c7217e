"""Ops that carry a state of constant size from token to token, in plain NumPy."""

from __future__ import annotations

import numpy as np

from lacewing.backends.reference.ops import RULES, sigmoid, softplus
from lacewing.backends.reference.state import State
from lacewing.program import ops


@RULES.rule(ops.GatedDelta)
def gated_delta(state: State, op: ops.GatedDelta) -> None:
    q, k = (_unit_heads(state.view(view), op) for view in (op.q, op.k))  # (T, H, Ck)
    v = state.view(op.v).reshape(len(q), op.heads, -1)  # (T, H, Cv)
    rate = state.weights.vector(op.rate)[:, None]  # (H, 1)
    decay = softplus(state.view(op.decay) + state.weights.vector(op.bias)).reshape(len(q), op.heads, -1)
    kept = np.exp((-np.exp(rate) if op.log_rate else rate) * decay)[..., None]  # (T, H, 1 or Ck, 1)
    beta, out = sigmoid(state.view(op.beta))[..., None], np.empty_like(v)  # (T, H, 1)
    for row, first, count in state.batch.parts:
        s = state.unit(op.state, 0, row)  # (H, Ck, Cv)
        for t in range(first, first + count):
            s = s * kept[t]
            u = beta[t] * (v[t] - np.einsum("hk,hkv->hv", k[t], s))
            s = s + k[t][..., None] * u[:, None]
            out[t] = np.einsum("hk,hkv->hv", q[t], s) * np.float32(op.scale)
        state.put_unit(op.state, 0, row, s)
    state.view(op.out)[:] = out.reshape(len(out), -1)


def _unit_heads(x: np.ndarray, op: ops.GatedDelta) -> np.ndarray:
    """Every key head brought to length 1, and given to the heads that read it: (T, H, Ck)."""
    heads = x.reshape(len(x), op.key_heads, -1)
    heads = heads / np.sqrt(np.sum(heads * heads, axis=-1, keepdims=True, dtype=np.float32) + np.float32(op.eps))
    times = op.heads // op.key_heads
    return np.tile(heads, (1, times, 1)) if op.tiled else np.repeat(heads, times, axis=1)
