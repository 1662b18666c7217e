"""What ops do with pages, in plain NumPy: storing into the KV cache, choosing positions, attention. T tokens, S positions."""

from __future__ import annotations

import numpy as np

from lacewing.backends.reference.ops import RULES
from lacewing.backends.reference.state import State
from lacewing.program import ops


@RULES.rule(ops.WriteKeysValues)
def write_keys_values(state: State, op: ops.WriteKeysValues) -> None:
    paged = state.program.states[op.state]
    for part, view in enumerate(view for view in (op.k, op.v, op.index) if view is not None):
        heads = paged.parts[part].heads  # type: ignore[union-attr]
        state.store(op.state, part, state.view(view).reshape(len(state.tokens), heads, -1))


@RULES.rule(ops.SelectKeys)
def select_keys(state: State, op: ops.SelectKeys) -> None:
    q, weights, chosen = state.view(op.q), state.view(op.weights), state.view(op.chosen).view(np.int32)
    part, most = len(state.program.states[op.state].parts) - 1, op.chosen.width
    for row, first, count in state.batch.parts:
        for t in range(first, first + count):
            seen = int(state.positions[t]) + 1
            if seen > most:
                index = state.load(op.state, part, row, 0, seen)[:, 0]  # (S, Ci)
                heads = np.maximum(q[t].reshape(op.heads, -1) @ index.T, 0)  # (Hi, S)
                scores = weights[t] @ heads
                ranks = np.where(np.isnan(scores), -np.inf, -scores)  # np.maximum keeps NaN
                chosen[t] = np.sort(np.argsort(ranks, kind="stable")[:most])


@RULES.rule(ops.Attention)
def attention(state: State, op: ops.Attention) -> None:
    q, out, group = state.view(op.q), state.view(op.out), op.heads // op.key_heads
    paged = state.program.states[op.state]
    for row, first, count in state.batch.parts:
        part = slice(first, first + count)
        positions = state.positions[part]
        low = first_seen(op, int(positions[0]))
        places = np.arange(low, int(positions[-1]) + 1)  # (S,)
        k = state.load(op.state, 0, row, low, int(positions[-1]) + 1)
        v = k[..., : op.value_width] if paged.latent else state.load(op.state, 1, row, low, int(positions[-1]) + 1)  # type: ignore[union-attr]
        k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)  # (S, H, C)
        heads = q[part].reshape(count, op.heads, -1).transpose(1, 0, 2)  # (H, T, C)
        scores = heads @ k.transpose(1, 2, 0) * np.float32(op.scale)  # (H, T, S)
        if op.softcap is not None:
            scores = np.float32(op.softcap) * np.tanh(scores / np.float32(op.softcap))
        hidden = places > positions[:, None]  # (T, S)
        hidden |= places < np.array([first_seen(op, int(position)) for position in positions])[:, None]
        if op.chosen is not None:
            _hide_others(hidden, state.view(op.chosen)[part].view(np.int32), positions)
        scores = np.where(hidden, np.float32(-np.inf), scores)
        if op.sinks is not None:  # one more column
            sinks = np.broadcast_to(state.weights.vector(op.sinks)[:, None, None], (*scores.shape[:2], 1))
            scores = np.concatenate([scores, sinks], axis=-1)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights = (weights / weights.sum(axis=-1, keepdims=True))[..., : len(places)]
        out[part] = (weights @ v.transpose(1, 0, 2)).transpose(1, 0, 2).reshape(count, -1)


def _hide_others(hidden: np.ndarray, chosen: np.ndarray, positions: np.ndarray) -> None:
    """Of tokens that see more positions than can be chosen: hide those that are not. `hidden` (T, S) begins with position 0."""
    for t in np.flatnonzero(positions >= chosen.shape[1]):
        others = np.ones(hidden.shape[1], bool)
        others[chosen[t]] = False
        hidden[t] |= others


def first_seen(op: ops.Attention, position: int) -> int:
    """The first position that a query sees."""
    low = 0 if op.window is None else max(0, position - op.window + 1)
    return low if op.chunk is None else max(low, position // op.chunk * op.chunk)
