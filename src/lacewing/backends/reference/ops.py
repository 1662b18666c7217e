"""The ops in plain NumPy. Each function reads and writes the views of its op; T tokens, H heads, C head width."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lacewing.backends.base import RoutedLayer
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
    first, second = slice(op.start, op.start + pairs), slice(op.start + pairs, op.start + 2 * pairs)
    if op.rope.adjacent:
        first, second = (slice(op.start + odd, op.start + 2 * pairs, 2) for odd in (0, 1))
    a, b = heads[..., first].copy(), heads[..., second].copy()
    heads[..., first], heads[..., second] = a * cos - b * sin, a * sin + b * cos
    x[:] = heads.reshape(x.shape)


def write_keys_values(state: State, op: ops.WriteKeysValues) -> None:
    for view, store in zip((op.k, op.v), state.keys_values[op.layer], strict=False):
        if view is None:
            continue
        values = state.view(view).reshape(len(state.tokens), *store.shape[2:])
        store[state.slots, state.positions] = values.astype(np.float16) if state.half_precision else values


def attention(state: State, op: ops.Attention) -> None:
    state.layer = op.layer
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
        if op.chunk is not None:
            hidden |= np.arange(seen) < (positions // op.chunk * op.chunk)[:, None]
        scores = np.where(hidden, np.float32(-np.inf), scores)
        if op.sinks is not None:  # one more column
            sinks = np.broadcast_to(state.weights.vector(op.sinks)[:, None, None], (*scores.shape[:2], 1))
            scores = np.concatenate([scores, sinks], axis=-1)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights = (weights / weights.sum(axis=-1, keepdims=True))[..., :seen]
        out[rows] = (weights @ v.transpose(1, 0, 2)).transpose(1, 0, 2).reshape(len(rows), -1)


def gated_activation(state: State, op: ops.GatedActivation) -> None:
    state.view(op.out)[:] = ACTIVATIONS[op.activation](state.view(op.gate)) * state.view(op.up)


def scale_by_position(state: State, op: ops.ScaleByPosition) -> None:
    steps = (state.positions + op.offset) // op.length
    state.view(op.x)[:] *= (1 + op.beta * np.log1p(steps)).astype(np.float32)[:, None]


def head_linear(state: State, op: ops.HeadLinear) -> None:
    x, out = (state.view(view).reshape(len(state.tokens), op.heads, -1).copy() for view in (op.x, op.out))  # (T, H, width)
    for head in range(op.heads):
        matrix = state.weights.member(op.weight, head)
        matrix = matrix.T if op.transposed else matrix  # (O, I)
        outputs, inputs = matrix.shape
        out[:, head, :outputs], out[:, head, outputs:] = x[:, head, :inputs] @ matrix.T, x[:, head, inputs:]
    state.view(op.out)[:] = out.reshape(len(out), -1)


def clamped_activation(state: State, op: ops.ClampedActivation) -> None:
    gate, up = np.minimum(state.view(op.gate), op.limit), np.clip(state.view(op.up), -op.limit, op.limit)
    state.view(op.out)[:] = gate * sigmoid(np.float32(op.alpha) * gate) * (up + 1)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -80, None))))


def silu(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / (1 + np.exp(-np.clip(x, -80, None))))


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * x * (1 + np.tanh(np.float32(0.7978845608028654) * (x + np.float32(0.044715) * x * x * x))))


def logits(state: State, op: ops.Logits) -> None:
    y = state.weights.product(state.view(op.x)[state.outputs], op.weight)  # (R, V)
    if op.scale != 1:
        y *= np.float32(op.scale)
    state.logits = y if op.softcap is None else np.float32(op.softcap) * np.tanh(y / np.float32(op.softcap))


def route(state: State, op: ops.Route) -> None:
    scores = state.view(op.logits).astype(np.float32)  # (T, E)
    shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
    p = sigmoid(scores) if op.gating == "sigmoid" else shifted / shifted.sum(axis=-1, keepdims=True)
    s = scores if op.bias is None else p + state.weights.vector(op.bias)
    broken = ~(np.isfinite(scores) & np.isfinite(s)).all(axis=-1)
    if op.groups > 1:
        runs = (p if op.bias is None else s).reshape(len(s), op.groups, -1)  # (T, groups, size)
        best = -np.sort(-runs, axis=-1)[..., : op.group_best].sum(axis=-1)
        used = np.argsort(-best, axis=-1, kind="stable")[:, : op.groups_used]
        kept = np.zeros(best.shape, bool)
        np.put_along_axis(kept, used, True, axis=-1)
        s = np.where(np.repeat(kept, runs.shape[-1], axis=-1), s, np.float32(-np.inf))
    ids = np.argsort(-s, axis=-1, kind="stable")[:, : op.ids.width]  # (T, A)
    weights = np.take_along_axis(p, ids, axis=-1)
    if op.renormalise:
        weights = weights / (weights.sum(axis=-1, keepdims=True) + np.float32(1e-20))
    ids[broken], weights[broken] = np.arange(op.ids.width), np.nan
    state.view(op.ids).view(np.int32)[:] = ids
    if state.watched is not None:
        state.watched.append(RoutedLayer(state.layer, ids.astype(np.int32), p.astype(np.float32)))
    state.view(op.weights)[:] = weights * np.float32(op.scale)


def expert_linear(state: State, op: ops.ExpertLinear) -> None:
    ids = state.view(op.ids).view(np.int32)  # (T, A)
    tokens, active = ids.shape
    x = np.repeat(state.view(op.x)[:, None], active, axis=1)
    if op.separate:
        x = state.view(op.x).reshape(tokens, active, -1)  # (T, A, I)
    results = []
    for name, bias in zip(op.weights, op.biases or (None,) * len(op.weights), strict=True):
        shape = state.weights.weights[name].shape
        y = np.full((tokens, active, shape[1 if not op.transposed else 2]), np.nan, np.float32)
        for expert in np.unique(ids[ids >= 0]):
            chosen, matrix = ids == expert, state.weights.member(name, int(expert))
            y[chosen] = x[chosen] @ (matrix if op.transposed else matrix.T)
            if op.factor is not None:
                y[chosen] *= state.view(op.factor)[chosen][:, None]
            if bias is not None:
                y[chosen] += state.weights.member(bias, int(expert))
        results.append(y)
    if len(op.outs) > len(results):
        both, half = results[0], results[0].shape[-1] // 2
        results = [both[..., ::2], both[..., 1::2]] if op.interleaved else [both[..., :half], both[..., half:]]
    for out, y in zip(op.outs, results, strict=True):
        state.view(out)[:] = y.reshape(tokens, -1)


def combine(state: State, op: ops.Combine) -> None:
    x = state.view(op.x).reshape(len(state.tokens), op.active, -1)  # (T, A, D)
    total = np.zeros((len(x), x.shape[-1]), np.float32)
    for index in range(op.active):
        y = x[:, index] if op.weights is None else x[:, index] * state.view(op.weights)[:, index, None]
        total += y if op.ids is None else np.where(state.view(op.ids).view(np.int32)[:, index, None] < 0, 0, y)
    state.view(op.out)[:] = total if op.add is None else total + state.view(op.add)


ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"silu": silu, "gelu_tanh": gelu_tanh}

OPS: dict[type[Op], Callable[[State, Any], None]] = {
    ops.Embed: embed,
    ops.Norm: norm,
    ops.Linear: linear,
    ops.Rope: rope,
    ops.WriteKeysValues: write_keys_values,
    ops.ScaleByPosition: scale_by_position,
    ops.HeadLinear: head_linear,
    ops.Attention: attention,
    ops.GatedActivation: gated_activation,
    ops.ClampedActivation: clamped_activation,
    ops.Route: route,
    ops.ExpertLinear: expert_linear,
    ops.Combine: combine,
    ops.Logits: logits,
}
