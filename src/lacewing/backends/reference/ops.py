"""The ops in plain NumPy. Each function reads and writes the views of its op; T tokens, H heads, C head width."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lacewing.backends.reference.state import State
from lacewing.backends.registry import Rules
from lacewing.backends.step import RoutedLayer
from lacewing.program import ops

RULES: Rules[Callable[[State, Any], None]] = Rules("reference")


@RULES.rule(ops.Embed)
def embed(state: State, op: ops.Embed) -> None:
    known = state.tokens >= 0
    rows = np.empty((len(known), op.out.width), np.float32)
    rows[known] = state.weights.rows(op.weight, state.tokens[known]) * np.float32(op.scale)
    if (given := state.batch.given) is not None:
        rows[given[0]] = given[1]
    state.view(op.out)[:] = rows


@RULES.rule(ops.Norm)
def norm(state: State, op: ops.Norm) -> None:
    _norm(state, op, op.heads)


@RULES.rule(ops.AddNorm)
def add_norm(state: State, op: ops.AddNorm) -> None:
    state.view(op.x)[:] += np.float32(op.scale) * state.view(op.add)
    _norm(state, op, 1)


def _norm(state: State, op: ops.Norm | ops.AddNorm, parts: int) -> None:
    x = state.view(op.x)
    heads = x.reshape(len(x), parts, -1)  # (T, heads, width / heads)
    if op.centred:
        heads = heads - np.mean(heads, axis=-1, keepdims=True, dtype=np.float32)
    scaled = heads / np.sqrt(np.mean(heads * heads, axis=-1, keepdims=True, dtype=np.float32) + np.float32(op.eps))
    if op.weight is not None:
        weight = state.weights.vector(op.weight) + np.float32(op.weight_offset)
        scaled = scaled * (weight if len(weight) == heads.shape[-1] else weight.reshape(parts, -1))
    if op.bias is not None:
        scaled = scaled + state.weights.vector(op.bias)
    state.view(op.out)[:] = scaled.reshape(x.shape)


@RULES.rule(ops.Linear)
def linear(state: State, op: ops.Linear) -> None:
    x = state.view(op.x)
    for weight, bias, out in zip(op.weights, op.biases or (None,) * len(op.outs), op.outs, strict=True):
        y = state.weights.product(x, weight)  # (T, out)
        state.view(out)[:] = y if bias is None else y + state.weights.vector(bias)


@RULES.rule(ops.Rope)
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


@RULES.rule(ops.ShortConvolution)
def short_convolution(state: State, op: ops.ShortConvolution) -> None:
    x, weight = state.view(op.x).copy(), state.weights.matrix(op.weight)  # (T, D), (D, L)
    taps = weight.shape[1]
    for row, first, count in state.batch.parts:
        seen = np.concatenate([state.unit(op.state, 0, row), x[first : first + count]])  # (L - 1 + T, D)
        y = np.zeros((count, x.shape[1]), np.float32)
        for tap in range(taps):
            y += weight[:, tap] * seen[tap : tap + count]
        state.view(op.out)[first : first + count] = y if op.bias is None else y + state.weights.vector(op.bias)
        state.put_unit(op.state, 0, row, seen[count:])


@RULES.rule(ops.SelectiveScan)
def selective_scan(state: State, op: ops.SelectiveScan) -> None:
    """For each token of a row: the state (H, N, P) decays, takes in the token, and is read."""
    count, each = len(state.tokens), op.heads // op.groups
    decay, skip, bias = (state.weights.vector(name) for name in (op.decay, op.skip, op.bias))
    decay = -np.exp(decay) if op.log_decay else decay
    dt = np.clip(softplus(state.view(op.dt) + bias), np.float32(op.limits[0]), np.float32(op.limits[1]))  # (T, H)
    x = state.view(op.x).reshape(count, op.heads, -1).copy()  # (T, H, P)
    b, c = (np.repeat(state.view(view).reshape(count, op.groups, -1), each, axis=1) for view in (op.b, op.c))  # (T, H, N)
    out = state.view(op.out).reshape(count, op.heads, -1).copy()
    for row, first, tokens in state.batch.parts:
        scanned = state.unit(op.state, 0, row)
        for t in range(first, first + tokens):
            scanned = np.exp(dt[t] * decay)[:, None, None] * scanned + b[t][:, :, None] * (dt[t][:, None] * x[t])[:, None]
            out[t] = (c[t][:, :, None] * scanned).sum(axis=1) + skip[:, None] * x[t]
        state.put_unit(op.state, 0, row, scanned)
    state.view(op.out)[:] = out.reshape(count, -1)


@RULES.rule(ops.GatedActivation)
def gated_activation(state: State, op: ops.GatedActivation) -> None:
    gate = ACTIVATIONS[op.activation](state.view(op.gate))
    state.view(op.out)[:] = np.repeat(gate, op.up.width // op.gate.width, axis=1) * state.view(op.up)


@RULES.rule(ops.Activation)
def activation(state: State, op: ops.Activation) -> None:
    x = state.view(op.x)
    state.view(op.out)[:] = xielu(x, *op.constants) if op.function == "xielu" else ACTIVATIONS[op.function](x)


@RULES.rule(ops.Hadamard)
def hadamard(state: State, op: ops.Hadamard) -> None:
    x, half = state.view(op.x), 1
    runs = np.array(x).reshape(-1, op.size)
    while half < op.size:
        pairs = runs.reshape(-1, 2, half)
        runs = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1)
        half *= 2
    x[:] = runs.reshape(x.shape) / np.float32(np.sqrt(op.size))


@RULES.rule(ops.ScaleByPosition)
def scale_by_position(state: State, op: ops.ScaleByPosition) -> None:
    steps = (state.positions + op.offset) // op.length
    state.view(op.x)[:] *= (1 + op.beta * np.log1p(steps)).astype(np.float32)[:, None]


@RULES.rule(ops.HeadLinear)
def head_linear(state: State, op: ops.HeadLinear) -> None:
    x, out = (state.view(view).reshape(len(state.tokens), op.heads, -1).copy() for view in (op.x, op.out))  # (T, H, width)
    for head in range(op.heads):
        matrix = state.weights.member(op.weight, head)
        matrix = matrix.T if op.transposed else matrix  # (O, I)
        outputs, inputs = matrix.shape
        out[:, head, :outputs], out[:, head, outputs:] = x[:, head, :inputs] @ matrix.T, x[:, head, inputs:]
    state.view(op.out)[:] = out.reshape(len(out), -1)


@RULES.rule(ops.SplitHeads)
def split_heads(state: State, op: ops.SplitHeads) -> None:
    heads, start = state.view(op.x).reshape(len(state.tokens), op.heads, -1), 0  # (T, H, width)
    for out in op.outs:
        width = out.width // op.heads
        state.view(out)[:] = heads[..., start : start + width].reshape(len(heads), -1)
        start += width


@RULES.rule(ops.ClampedActivation)
def clamped_activation(state: State, op: ops.ClampedActivation) -> None:
    gate, up = np.minimum(state.view(op.gate), op.limit), np.clip(state.view(op.up), -op.limit, op.limit)
    state.view(op.out)[:] = gate * sigmoid(np.float32(op.alpha) * gate) * (up + 1)


@RULES.rule(ops.LimitedActivation)
def limited_activation(state: State, op: ops.LimitedActivation) -> None:
    gate = np.minimum(silu(state.view(op.gate)), np.float32(op.limit))
    state.view(op.out)[:] = gate * np.clip(state.view(op.up), -op.limit, op.limit)


def xielu(x: np.ndarray, positive: float, negative: float, beta: float, eps: float) -> np.ndarray:
    p, n, b = (np.float32(each) for each in (positive, negative, beta))
    return np.asarray(np.where(x > 0, p * x * x + b * x, n * (np.expm1(np.minimum(x, np.float32(eps))) - x) + b * x))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -80, None))))


def silu(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / (1 + np.exp(-np.clip(x, -80, None))))


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * x * (1 + np.tanh(np.float32(0.7978845608028654) * (x + np.float32(0.044715) * x * x * x))))


def plain(x: np.ndarray) -> np.ndarray:
    return x


def gelu(x: np.ndarray) -> np.ndarray:
    erf = np.array([math.erf(value) for value in (x.reshape(-1) * math.sqrt(0.5)).tolist()]).reshape(x.shape)
    return np.asarray((0.5 * x * (1 + erf)).astype(np.float32))


def relu2(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(x, 0) ** 2)


def softplus(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))


ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "silu": silu, "gelu": gelu, "gelu_tanh": gelu_tanh, "none": plain, "relu2": relu2, "sigmoid": sigmoid, "softplus": softplus,
}  # fmt: skip


@RULES.rule(ops.Logits)
def logits(state: State, op: ops.Logits) -> None:
    y = state.weights.product(state.view(op.x)[state.outputs], op.weight)  # (R, V)
    if op.bias is not None:
        y = y + state.weights.vector(op.bias)
    if op.scale != 1:
        y *= np.float32(op.scale)
    state.logits = y if op.softcap is None else np.float32(op.softcap) * np.tanh(y / np.float32(op.softcap))


@RULES.rule(ops.Route)
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
    weights = sparsemixer(scores, ids, op.jitter) if op.gating == "sparsemixer" else np.take_along_axis(p, ids, axis=-1)
    if op.renormalise:
        weights = weights / (weights.sum(axis=-1, keepdims=True) + np.float32(1e-20))
    ids[broken], weights[broken] = np.arange(op.ids.width), np.nan
    state.view(op.ids).view(np.int32)[:] = ids
    if state.watched is not None:
        state.watched.append(RoutedLayer(op.layer, ids.astype(np.int32), p.astype(np.float32)))
    scaled = weights * np.float32(op.scale)
    state.view(op.weights)[:] = scaled if op.scales is None else scaled * state.weights.vector(op.scales)[ids]


def sparsemixer(scores: np.ndarray, ids: np.ndarray, jitter: float) -> np.ndarray:
    """(T, A): the share of each chosen expert among those left that are nearly as large."""
    weights, left = np.empty(ids.shape, np.float32), np.ones(scores.shape, bool)
    for index in range(ids.shape[1]):
        chosen = ids[:, index, None]
        top = np.take_along_axis(scores, chosen, axis=-1)
        near = left & (top - scores <= np.float32(2 * jitter) * np.maximum(np.abs(scores), top))
        weights[:, index] = 1 / np.where(near, np.exp(scores - top), 0).sum(axis=-1)
        np.put_along_axis(left, chosen, False, axis=-1)
    return weights


@RULES.rule(ops.ExpertLinear)
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


@RULES.rule(ops.Combine)
def combine(state: State, op: ops.Combine) -> None:
    x = state.view(op.x).reshape(len(state.tokens), op.active, -1)  # (T, A, D)
    total = np.zeros((len(x), x.shape[-1]), np.float32)
    for index in range(op.active):
        y = x[:, index] if op.weights is None else x[:, index] * state.view(op.weights)[:, index, None]
        total += y if op.ids is None else np.where(state.view(op.ids).view(np.int32)[:, index, None] < 0, 0, y)
    state.view(op.out)[:] = total if op.add is None else total + state.view(op.add)
