"""Cases of attention over positions that an index chooses: `tests.backends.cpu.single_ops.Case`."""

from __future__ import annotations

import numpy as np

from lacewing.program.ops import Attention, Buffer, Hadamard, SelectKeys, WriteKeysValues
from lacewing.program.states import PagedState, Part
from tests.backends.cpu.single_ops import Case, normal


def selection_case(
    tokens: int, most: int, heads: int = 3, width: int = 40, value: int = 32, index: tuple[int, int] = (4, 32)
) -> Case:
    """Latent keys of `width` whose first `value` are values, an index of (heads, width). A token's row of x: keys, queries, index,
    its queries, its weights."""
    widths = (width, heads * width, index[1], index[0] * index[1], index[0])
    whole, starts = Buffer("x", sum(widths)), np.cumsum((0, *widths)).tolist()
    k, q, own, asked, weights = (whole.view(start, each) for start, each in zip(starts, widths, strict=False))
    chosen, out = Buffer("chosen", most).view(), Buffer("out", heads * value).view()
    state = PagedState((Part("keys", 1, width), Part("index", 1, index[1])), latent=True)
    ops = (
        WriteKeysValues(k, None, 0, own),
        SelectKeys(asked, weights, chosen, 0, index[0]),
        Attention(q, out, 0, heads, 1, 0.2, chosen=chosen),
    )
    return Case(ops, normal(tokens, sum(widths)), out, {}, (state,))


def dense(case: Case) -> Case:
    """The same without a choice."""
    write, _, attention = case.ops
    assert isinstance(write, WriteKeysValues) and isinstance(attention, Attention)
    state = case.states[0]
    assert isinstance(state, PagedState)
    ops = (WriteKeysValues(write.k, None, 0), Attention(attention.q, attention.out, 0, attention.heads, 1, attention.scale))
    return Case(ops, case.x, case.out, {}, (PagedState(state.parts[:1], latent=True),))


def with_ties(case: Case) -> Case:
    """Index, its queries and weights in small whole numbers: many scores are equal, and exact in any order."""
    write, select, _ = case.ops
    assert isinstance(write, WriteKeysValues) and isinstance(select, SelectKeys) and write.index is not None
    x = case.x.copy()
    for view in (write.index, select.q, select.weights):
        part = x[:, view.start : view.start + view.width]
        part[:] = np.trunc(np.clip(part, -1.9, 1.9))
    return Case(case.ops, x, case.out, {}, case.states)


def spread(case: Case) -> Case:
    """As `Program.with_kv_type` stores an index in blocks of bytes."""
    write, select, attention = case.ops
    assert isinstance(write, WriteKeysValues) and isinstance(select, SelectKeys) and write.index is not None
    width = write.index.width
    ops = (Hadamard(write.index, 1, width), write, Hadamard(select.q, select.heads, width), select, attention)
    return Case(ops, case.x, case.out, {}, case.states)
