"""Checks that the tests of this folder share with `instruction_set.py`, which runs them on other instruction sets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lacewing.backends.cpu.isa import host_isa
from lacewing.backends.cpu.quants import TILES
from lacewing.program.ops import (
    AddNorm,
    Attention,
    Buffer,
    Embed,
    ExpertLinear,
    GatedActivation,
    Linear,
    Norm,
    Op,
    Rope,
    RopeSpec,
    Route,
    SelectiveScan,
    ShortConvolution,
    View,
    WriteKeysValues,
)
from lacewing.program.states import Chunk, FixedState, Window
from tests.backends.cpu.single_ops import (
    HALVES,
    Batch,
    Case,
    as_bytes_and_back,
    dequantised,
    floats,
    nmse,
    normal,
    one_batch,
    random_weight,
    scaled_weight,
    singly,
)
from tests.paged import paged


def check_linear(quant: str, rows: int, width: int, tokens: Sequence[int]) -> None:
    """x @ w.T + bias: to float32's precision for the bytes that the kernel sees, and near the product of floats."""
    weight, bias = random_weight("w", quant, rows, width), normal(rows, seed=1)
    y = Buffer("y", rows).view()
    ops = (Linear(Buffer("x", width).view(), ("w",), (y,), ("b",)),)
    x = normal(sum(tokens), width, seed=2)
    batches: list[Batch] = [([0] * count, list(range(count))) for count in tokens]
    found = Case(ops, x, y, {"w": weight, "b": floats("b", bias)}).run(batches)
    values = dequantised(weight).astype(np.float64)
    tiled = quant in TILES and rows >= host_isa().lanes
    assert nmse(found - bias, (as_bytes_and_back(x) if tiled else x) @ values.T) < 1e-10
    assert nmse(found - bias, x @ values.T) < 5e-4


def check_scaled(quant: str, block: tuple[int, int], rows: int, width: int) -> None:
    """A linear, alone and of chosen experts both ways around, for floats with a factor for each block."""
    factors = "F32" if quant == "F8_E4M3" else "F8_E8M0"
    y, x, batches = Buffer("y", rows).view(), normal(21, width + 3, seed=2), [*one_batch(1), *one_batch(19, 1), *one_batch(1, 20)]
    whole, ids, chosen = Buffer("x", width + 3), Buffer("ids", 1).view(), Buffer("chosen", 1).view()
    source, route = whole.view(0, width), Route(whole.view(width), ids, chosen)
    weights = {"w": scaled_weight("w", quant, (rows, width), block, 0, factors)}
    check_against_reference(Case((Linear(source, ("w",), (y,)),), x, y, weights), batches, 1e-5)
    for turned in (False, True) if quant == "F8_E4M3" else (False,):
        size = (width, rows) if turned else (rows, width)
        weights = {"w": scaled_weight("w", quant, (3, *size), block, 0, factors)}
        ops = (route, ExpertLinear(source, ids, ("w",), (y,), transposed=turned))
        check_against_reference(Case(ops, x, y, weights), batches, 1e-5)


def check_one_token(quant: str, rows: int, width: int) -> None:
    """A token that comes alone, for which there may be a kernel of its own, gets the bits that it gets among others."""
    y = Buffer("y", rows).view()
    weights = {"w": random_weight("w", quant, rows, width)}
    case = Case((Linear(Buffer("x", width).view(), ("w",), (y,)),), normal(3, width), y, weights)
    assert np.array_equal(case.run(singly(one_batch(3)), 2), case.run(one_batch(3)))


def check_tile_order(case: Case, batches: Sequence[Batch], tiled: Sequence[str] = ("w",)) -> None:
    """The same bits whether weights lie row after row or in tiles."""
    for threads in (1, 2):
        assert np.array_equal(replace(case, tiled=frozenset(tiled)).run(batches, threads), case.run(batches, threads))


def check_tiled_linear(quant: str, rows: int, width: int) -> None:
    """For tokens that come alone, a few together, and many."""
    x, y = Buffer("x", width).view(), Buffer("y", rows).view()
    case = Case((Linear(x, ("w",), (y,)),), normal(47, width), y, {"w": random_weight("w", quant, rows, width)})
    check_tile_order(case, [*one_batch(1), *one_batch(3, 1), *one_batch(16, 4), *one_batch(7, 20), *one_batch(20, 27)])


def largest_activations() -> np.ndarray:
    """(11, 512), which becomes bytes of 127 and -127."""
    x = np.ones((11, 512), np.float32) * np.array([1, -1], np.float32)[np.arange(11) % 2, None]
    x[4, ::2], x[5, 1::2], x[6, 256:], x[7, 16:272] = -1, -1, -1, 1
    return x


def check_extremes(quant: str, rows: int, x: np.ndarray) -> None:
    """Weights whose digits are all the largest, all the lowest, or both in turn, times x (N, width), in both orders of memory."""
    y = Buffer("y", rows).view()
    weight = random_weight("w", quant, rows, x.shape[1])
    blocks = weight.data.reshape(rows, -1, weight.quant.block_bytes)
    scales = {at + i for at in HALVES.get(quant, (0,)) for i in (0, 1)}
    digits = [at for at in range(weight.quant.block_bytes) if at not in scales]
    for row, pattern in enumerate((0xFF, 0x00, 0xF0)):
        blocks[row::3, :, digits] = pattern
    case = Case((Linear(Buffer("x", x.shape[1]).view(), ("w",), (y,)),), x, y, {"w": weight})
    found = case.run(singly(one_batch(len(x))))
    expected = as_bytes_and_back(x) @ dequantised(weight).T.astype(np.float64)
    size = np.abs(x) @ np.abs(dequantised(weight)).T.astype(np.float64)
    assert (np.abs(found - expected) <= 1e-5 * size).all()
    check_tile_order(case, [*one_batch(4), *one_batch(2, 4), *one_batch(1, 6), *one_batch(4, 7)])


def check_embedding(quant: str) -> None:
    """Rows of a table, scaled: those that the format's own formula gives."""
    width = 259 if quant in ("F32", "F16", "BF16", "F64", "I8") else 512
    table, out = random_weight("table", quant, width, width), Buffer("out", width).view()
    found = Case((Embed("table", out, 1.75),), np.zeros((20, 8), np.float32), out, {"table": table}).run(one_batch(20))
    np.testing.assert_allclose(found, dequantised(table)[:20] * np.float32(1.75), rtol=1e-6, atol=1e-9)


def check_against_reference(case: Case, batches: Sequence[Batch], tolerance: float = 2e-6, **limits: int) -> np.ndarray:
    """The same numbers as the reference backend, up to a share of their size; on two threads the same bits as on one."""
    found, expected = case.run(batches, **limits), case.run(batches, None, **limits)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * float(np.abs(expected).max()))
    assert np.array_equal(case.run(batches, 2, **limits), found)
    return found


def norm_case(width: int, heads: int, weighted: bool, add: bool, in_place: bool = False, centred: bool = False) -> Case:
    """A norm with an offset of 1 on its weight; with `add`, of a sum, which is looked at beside the norm. `centred`: and biased."""
    both = Buffer("x", 2 * width)
    x, other = both.view(0, width), both.view(width)
    out = x if in_place else Buffer("out", width).view()
    weights = {"w": floats("w", normal(width // heads, seed=1))} if weighted else {}
    weight, offset = ("w", 1.0) if weighted else (None, 0.0)
    bias = "b" if centred else None
    if centred:
        weights["b"] = floats("b", normal(width // heads, seed=3))
    ops: list[Op] = [Norm(x, weight, out, 1e-5, heads, offset, bias, centred)]
    if add:
        ops = [AddNorm(x, other, weight, out, 1e-5, offset, 0.22, bias, centred)]
    if add:  # the sum must have been stored: norm it again
        out = Buffer("again", width).view()
        ops.append(Norm(x, None, out, 1e-5))
    return Case(tuple(ops), normal(21, 2 * width, seed=2) + np.float32(centred), out, weights)


def heads_case(heads: int, width: int, pairs: int, adjacent: bool, norm: bool) -> Case:
    """QK norm and rotation of some heads that lie in the middle of a buffer."""
    buffer = Buffer("x", heads * width + 24)
    view = buffer.view(16, heads * width)
    rope = RopeSpec(tuple(10000.0 ** (-i / pairs) for i in range(pairs)), 1.1, adjacent)
    ops: tuple[Op, ...] = (Rope(view, heads, rope),)
    if norm:
        ops = (Norm(view, "w", view, 1e-6, heads), *ops)
    return Case(ops, normal(21, buffer.width), buffer.view(), {"w": floats("w", normal(width, seed=1))} if norm else {})


def gated_case(width: int, activation: str, in_place: bool) -> Case:
    both = Buffer("x", 2 * width)
    out = both.view(0, width) if in_place else Buffer("out", width).view()
    x = normal(21, 2 * width) * 4
    return Case((GatedActivation(both.view(0, width), both.view(width), out, activation),), x, out, {})


def attention_case(
    count: int, heads: int, key_heads: int, width: int, value_width: int, window: int | None = None, softcap: float | None = None
) -> Case:
    """Attention of `count` random queries over random keys and values."""
    queries, keys, values = heads * width, key_heads * width, key_heads * value_width
    buffer, out = Buffer("x", queries + keys + values), Buffer("out", heads * value_width).view()
    views = [View(buffer, start, size) for start, size in ((0, queries), (queries, keys), (queries + keys, values))]
    attention = Attention(views[0], out, 0, heads, key_heads, 1.5 * width**-0.5, window, softcap)
    ops = (WriteKeysValues(views[1], views[2], 0), attention)
    return Case(ops, normal(count, buffer.width) * 1.5, out, {}, (paged(key_heads, width, value_width),))


def scan_case(
    count: int, heads: int, groups: int, width: int, states: int, limits: tuple[float, float] = (0.0, math.inf), log: bool = False
) -> Case:
    """A selective scan of random rows whose decays are slow and fast."""
    sizes = [heads * width, groups * states, groups * states, heads]
    x, out = Buffer("x", sum(sizes)), Buffer("out", heads * width).view()
    views = [x.view(sum(sizes[:index]), size) for index, size in enumerate(sizes)]
    decay = np.exp(normal(heads, seed=1))
    weights = {"a": floats("a", np.log(decay) if log else -decay), "d": floats("d", normal(heads, seed=2)),
               "bias": floats("bias", normal(heads, seed=3) - 1)}  # fmt: skip
    op = SelectiveScan(*views, "a", "d", "bias", out, 0, heads, groups, limits, log)
    state = FixedState((("scan", (heads, states, width)),))
    return Case((op,), normal(count, x.width, seed=7), out, weights, (state,))


def state_case(count: int, dtype: str = "f16") -> Case:
    """A short convolution, attention over all, attention over a window and over a chunk, each with a state of its own."""
    heads, width = 4, 32
    x, out = Buffer("x", 64 + 2 * heads * width), Buffer("out", 64 + 3 * heads * width)
    q, k, v = x.view(64, heads * width), x.view(64 + heads * width, 2 * width), x.view(64 + (heads + 2) * width, 2 * width)
    sizes = [64, heads * width, heads * width, heads * width]
    outs = [out.view(sum(sizes[:index]), size) for index, size in enumerate(sizes)]
    ops = [ShortConvolution(x.view(0, 64), "taps", outs[0], 0, "bias")]
    reaches = {1: (None, None), 2: (40, None), 3: (None, 64)}
    for state, (window, chunk) in reaches.items():
        ops += [WriteKeysValues(k, v, state), Attention(q, outs[state], state, heads, 2, 0.3, window=window, chunk=chunk)]
    states = (FixedState((("conv", (2, 64)),)), *(paged(2, width, width, each, dtype) for each in (None, Window(40), Chunk(64))))
    weights = {"taps": floats("taps", normal(64, 3, seed=4)), "bias": floats("bias", normal(64, seed=5))}
    return Case(tuple(ops), normal(count, x.width, seed=6), out.view(), weights, states)
