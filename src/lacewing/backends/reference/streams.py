"""The ops of `program/stream_ops.py` in plain NumPy."""

from __future__ import annotations

import numpy as np

from lacewing.backends.reference.ops import RULES
from lacewing.backends.reference.state import State
from lacewing.program import stream_ops as streams


@RULES.rule(streams.Lookup)
def lookup(state: State, op: streams.Lookup) -> None:
    known = (state.tokens >= 0) & (state.tokens < state.program.weights[op.table][0])
    rows = state.weights.rows(op.table, np.where(known, state.tokens, op.other))
    state.view(op.out)[:] = rows * np.float32(op.scale)


@RULES.rule(streams.AddScale)
def add_scale(state: State, op: streams.AddScale) -> None:
    x = state.view(op.x)
    parts = x.reshape(len(x), -1, op.x.width if op.add is None else op.add.width)  # (T, repeats, period)
    y = parts if op.add is None else parts + state.view(op.add)[:, None]
    y = y * np.float32(op.factor)
    state.view(op.out)[:] = (y if op.weight is None else y * state.weights.vector(op.weight)).reshape(x.shape)


def coefficients(state: State, op: streams.AltUpPredict | streams.AltUpCorrect) -> np.ndarray:
    """(T, rows of the weight)"""
    return np.asarray(np.tanh(state.view(op.router) * np.float32(op.scale)) @ state.weights.matrix(op.weight).T)


@RULES.rule(streams.AltUpPredict)
def predict(state: State, op: streams.AltUpPredict) -> None:
    x, count = state.view(op.x), op.router.width
    parts = x.reshape(len(x), count, -1)  # (T, S, D)
    x[:] = (parts + coefficients(state, op).reshape(len(x), count, count) @ parts).reshape(x.shape)


@RULES.rule(streams.AltUpCorrect)
def correct(state: State, op: streams.AltUpCorrect) -> None:
    x = state.view(op.x)
    parts = x.reshape(len(x), op.router.width, -1)
    innovation = state.view(op.new) - parts[:, op.active]  # (T, D)
    x[:] = (parts + (1 + coefficients(state, op))[..., None] * innovation[:, None]).reshape(x.shape)


@RULES.rule(streams.MatchMagnitude)
def match_magnitude(state: State, op: streams.MatchMagnitude) -> None:
    x, like = state.view(op.x), state.view(op.like)
    squares = [np.mean(each * each, axis=-1, keepdims=True, dtype=np.float32) for each in (like, x)]
    x *= np.sqrt(squares[0] / np.maximum(squares[1], np.float32(op.least)))


@RULES.rule(streams.GaussianTopK)
def gaussian_top_k(state: State, op: streams.GaussianTopK) -> None:
    x = state.view(op.x)
    mean, std = x.mean(axis=-1, keepdims=True), x.std(axis=-1, keepdims=True)
    x[:] = np.maximum(x - (mean + std * np.float32(op.cutoff)), 0)
