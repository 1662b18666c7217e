"""The ops in plain NumPy. Each function reads and writes the views of its op; T tokens, H heads, C head width."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lacewing.backends.reference.state import State
from lacewing.program import ops
from lacewing.program.ops import Op


def embed(state: State, op: ops.Embed) -> None:
    state.view(op.out)[:] = state.weights.rows(op.weight, state.tokens) * np.float32(op.scale)


def norm(state: State, op: ops.Norm) -> None:
    x = state.view(op.x)
    if op.add is not None:
        x += state.view(op.add)
    heads = x.reshape(len(x), op.heads, -1)  # (T, heads, width / heads)
    scaled = heads / np.sqrt(np.mean(heads * heads, axis=-1, keepdims=True, dtype=np.float32) + np.float32(op.eps))
    if op.weight is not None:
        scaled = scaled * (state.weights.vector(op.weight) + np.float32(op.weight_offset))
    state.view(op.out)[:] = scaled.reshape(x.shape)


def linear(state: State, op: ops.Linear) -> None:
    x = state.view(op.x)
    for weight, bias, out in zip(op.weights, op.biases or (None,) * len(op.outs), op.outs, strict=True):
        y = state.weights.product(x, weight)  # (T, out)
        state.view(out)[:] = y if bias is None else y + state.weights.vector(bias)


def rope(state: State, op: ops.Rope) -> None:
    x = state.view(op.x)
    heads = x.reshape(len(x), op.heads, -1).copy()  # (T, heads, C)
    pairs = len(op.rope.frequencies)
    angles = state.positions[:, None].astype(np.float64) * np.array(op.rope.frequencies)  # (T, pairs)
    cos, sin = ((f(angles) * op.rope.magnitude).astype(np.float32)[:, None, :] for f in (np.cos, np.sin))
    first, second = slice(pairs), slice(pairs, 2 * pairs)
    if op.rope.adjacent:
        first, second = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
    a, b = heads[..., first].copy(), heads[..., second].copy()
    heads[..., first], heads[..., second] = a * cos - b * sin, a * sin + b * cos
    x[:] = heads.reshape(x.shape)


def write_keys_values(state: State, op: ops.WriteKeysValues) -> None:
    for view, store in zip((op.k, op.v), state.keys_values[op.layer], strict=True):
        values = state.view(view).reshape(len(state.tokens), *store.shape[2:])
        store[state.slots, state.positions] = values.astype(np.float16) if state.half_precision else values


def attention(state: State, op: ops.Attention) -> None:
    q, out = state.view(op.q), state.view(op.out)
    group = op.heads // op.key_heads
    for slot in np.unique(state.slots):
        rows = np.flatnonzero(state.slots == slot)
        positions = state.positions[rows]
        seen = int(positions.max()) + 1
        k, v = (np.repeat(store[slot, :seen], group, axis=1) for store in state.keys_values[op.layer])  # (S, H, C)
        heads = q[rows].reshape(len(rows), op.heads, -1).transpose(1, 0, 2)  # (H, T, C)
        scores = heads @ k.transpose(1, 2, 0) * np.float32(op.scale)  # (H, T, S)
        if op.softcap is not None:
            scores = np.float32(op.softcap) * np.tanh(scores / np.float32(op.softcap))
        distance = positions[:, None] - np.arange(seen)  # (T, S)
        hidden = (distance < 0) | (distance >= (op.window or seen + 1))
        scores = np.where(hidden, np.float32(-np.inf), scores)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        out[rows] = (weights @ v.transpose(1, 0, 2)).transpose(1, 0, 2).reshape(len(rows), -1)


def gated_activation(state: State, op: ops.GatedActivation) -> None:
    state.view(op.out)[:] = ACTIVATIONS[op.activation](state.view(op.gate)) * state.view(op.up)


def silu(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / (1 + np.exp(-np.clip(x, -80, None))))


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * x * (1 + np.tanh(np.float32(0.7978845608028654) * (x + np.float32(0.044715) * x * x * x))))


def logits(state: State, op: ops.Logits) -> None:
    y = state.weights.product(state.view(op.x)[state.outputs], op.weight)  # (R, V)
    if op.scale != 1:
        y *= np.float32(op.scale)
    state.logits = y if op.softcap is None else np.float32(op.softcap) * np.tanh(y / np.float32(op.softcap))


ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"silu": silu, "gelu_tanh": gelu_tanh}

OPS: dict[type[Op], Callable[[State, Any], None]] = {
    ops.Embed: embed,
    ops.Norm: norm,
    ops.Linear: linear,
    ops.Rope: rope,
    ops.WriteKeysValues: write_keys_values,
    ops.Attention: attention,
    ops.GatedActivation: gated_activation,
    ops.Logits: logits,
}
