"""Attention on WebGPU against the reference: heads, windows, sinks, soft-caps, latent, rows, pages, long contexts, bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lacewing.backends.gpu.run import Run
from lacewing.backends.webgpu.lowering.attention import ALONE, PREFILL_TOKENS, most_splits
from lacewing.errors import OutOfMemoryError, UnsupportedModelError
from lacewing.program.ops import Attention, Buffer, Linear, View, WriteKeysValues
from lacewing.program.states import Chunk, Window
from tests.backends.cpu.single_ops import Batch, Case, floats, nmse, normal, one_batch, random_weight, singly
from tests.backends.webgpu.single_ops import CODES, FLOATS, backend, error, run, run_step
from tests.paged import paged, with_pages

PLAIN = "none"
# one token, few, a tile and a bit more, one again
PROMPT: list[Batch] = [([0] * n, list(range(s, s + n))) for s, n in ((0, 1), (1, 3), (4, 21), (25, 1))]
COUNT = 26


def attention_case(
    count: int,
    heads: int,
    key_heads: int,
    width: int,
    value_width: int,
    latent: bool = False,
    sinks: bool = False,
    dtype: str = "f16",
    **how: Any,
) -> Case:
    """Attention of `count` random queries; `latent`: the values are in the keys. `how` goes to the op."""
    sizes = (heads * width, key_heads * width, 0 if latent else key_heads * value_width)
    buffer, out = Buffer("x", sum(sizes)), Buffer("out", heads * value_width).view()
    q, k = View(buffer, 0, sizes[0]), View(buffer, sizes[0], sizes[1])
    v = None if latent else View(buffer, sizes[0] + sizes[1], sizes[2])
    attention = Attention(q, out, 0, heads, key_heads, 1.5 * width**-0.5, sinks="sinks" if sinks else None, **how)
    reach = Window(how["window"]) if how.get("window") else Chunk(how["chunk"]) if how.get("chunk") else None
    state = paged(key_heads, width, value_width, reach, dtype, latent)
    weights = {"sinks": floats("sinks", normal(heads, seed=9))} if sinks else {}
    return Case((WriteKeysValues(k, v, 0), attention), normal(count, buffer.width) * 1.5, out, weights, (state,))


def prompt(*sizes: int) -> list[Batch]:
    """Steps of slot 0, one after another."""
    starts = np.cumsum((0, *sizes)).tolist()
    return [([0] * n, list(range(s, s + n))) for s, n in zip(starts, sizes, strict=False)]


# heads, key heads, key width, value width
@pytest.mark.parametrize(
    ("variant", "shape"),
    [
        (PLAIN, (4, 2, 16, 16)),
        (PLAIN, (3, 1, 64, 64)),
        (FLOATS, (2, 1, 80, 80)),
        (FLOATS, (5, 5, 12, 33)),
        (PLAIN, (1, 1, 192, 128)),
        (FLOATS, (2, 1, 256, 256)),
    ],
    ids=str,
)
def test_shapes_of_heads(variant: str, shape: tuple[int, int, int, int]) -> None:
    """Compiling a kernel takes a second on a software adapter: not every shape in every variant."""
    assert error(attention_case(COUNT, *shape), PROMPT, variant) < 1e-10


@pytest.mark.parametrize(("heads", "key_heads"), [(16, 1), (7, 1)])
def test_large_groups(heads: int, key_heads: int) -> None:
    """More heads of a group than a workgroup takes, and numbers that do not halve."""
    assert error(attention_case(4, heads, key_heads, 8, 8), PROMPT[:2], FLOATS) < 1e-10


def test_float32_store() -> None:
    assert error(attention_case(COUNT, 2, 2, 36, 28, dtype="f32"), PROMPT, FLOATS) < 1e-10


@pytest.mark.parametrize("shape", [(4, 1, 24, 16), (2, 1, 576, 512)], ids=str)
def test_values_in_the_keys(shape: tuple[int, int, int, int]) -> None:
    assert error(attention_case(COUNT, *shape, latent=True), PROMPT, FLOATS) < 1e-10


@pytest.mark.parametrize(
    ("variant", "how"),
    [
        (FLOATS, {"sinks": True, "window": 1}),
        (PLAIN, {"chunk": 9, "window": 7}),
        (FLOATS, {"chunk": 6, "softcap": 0.5}),
        (PLAIN, {"sinks": True, "softcap": 5.0}),
    ],
    ids=str,
)
def test_what_is_seen_and_how(variant: str, how: dict[str, Any]) -> None:
    assert error(attention_case(COUNT, 4, 2, 16, 16, **how), PROMPT, variant) < 1e-10


@pytest.mark.parametrize(("variant", "how"), [(PLAIN, {}), (FLOATS, {"sinks": True, "window": 300})], ids=str)
def test_splits_of_long_contexts(variant: str, how: dict[str, Any]) -> None:
    """Past the keys that one workgroup takes, up to a context that is full."""
    batches = prompt(64, 64, 64, 63, 1, 1, 1, 2, 40, 1)
    assert error(attention_case(301, 4, 2, 16, 16, **how), batches, variant, 301) < 1e-10


def test_number_of_splits() -> None:
    """The grid holds the splits of every token that may come, as `attention_range.wgsl` counts them."""
    assert most_splits(1) == most_splits(ALONE) == 1
    assert most_splits(ALONE + 1) == 5 and most_splits(4096) == 64
    for keys in (300, 512, 513, 4000, 4097, 8192, 8200, 20000, 2**20):
        sizes = {seen: max(64, (1 << (seen - 1).bit_length()) // 64) for seen in range(max(257, keys - 9000), keys + 1)}
        assert max(-(-seen // size) for seen, size in sizes.items()) <= most_splits(keys) <= 64


@pytest.mark.parametrize("variant", [PLAIN, CODES])
def test_tokens_of_several_rows(variant: str) -> None:
    """Each token sees its own row; neighbours and their number change no bit."""
    batches: list[Batch] = [([0] * 3 + [1] * 2 + [2] * 4, [0, 1, 2, 0, 1, 0, 1, 2, 3])]
    batches += [([2, 0, 1], [4, 3, 2]), ([1, 0, 0, 0], [3, 4, 5, 6]), ([0, 2, 1], [7, 5, 4])]
    case = attention_case(19, 4, 2, 16, 16, window=5)
    assert error(case, batches, variant, rows=3) < 1e-10
    several = batches[:1] + batches[2:3]  # one token a row is prepared by another kernel
    few = replace(case, x=case.x[[*range(9), *range(12, 16)]])
    assert np.array_equal(run(few, several, variant, rows=3), run(few, singly_by_row(several), variant, rows=3))


def singly_by_row(batches: Sequence[Batch]) -> list[Batch]:
    """The same tokens, one row a step."""
    found: list[Batch] = []
    for rows, positions in batches:
        for row in dict.fromkeys(rows):
            found.append(([row] * rows.count(row), [p for r, p in zip(rows, positions, strict=True) if r == row]))
    return found


@pytest.mark.parametrize("dtype", ["f16", "q8_0"])
def test_rows_decoded_together(dtype: str) -> None:
    """One token of each of several rows, near and far, with splits and without, to the bit as each alone."""
    starts, context = (1, 300, 40, 700), 704
    batches: list[Batch] = [
        ([row] * n, list(range(s, s + n))) for row, start in enumerate(starts) for s, n in pieces(start, 64)
    ]  # the prompts
    filled = sum(starts)
    case = attention_case(filled + 12, 4, 2, 32, 32, dtype=dtype)
    together: list[Batch] = [*batches, *(([0, 1, 2, 3], [start + more for start in starts]) for more in range(3))]
    assert error(case, together, FLOATS, context, rows=4) < 1e-10
    alone = [*batches, *(([row], [start + more]) for more in range(3) for row, start in enumerate(starts))]
    assert np.array_equal(run(case, together, FLOATS, context, 4), run(case, alone, FLOATS, context, 4))


def pieces(count: int, most: int) -> list[tuple[int, int]]:
    return [(first, min(most, count - first)) for first in range(0, count, most)]


def test_more_decoded_tokens_than_splits_have_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are done in passes; no bit changes."""
    batches: list[Batch] = [([row] * n, list(range(s, s + n))) for row in range(5) for s, n in pieces(290, 58)]
    mixed: Batch = ([0] * 3 + [1] + [2] * 2 + [3] * 4 + [4], [290, 291, 292, 290, 290, 291, 290, 291, 292, 293, 290])
    case = attention_case(5 * 290 + 16, 2, 1, 16, 16)
    whole = run(case, [*batches, mixed, ([0, 1, 2, 3, 4], [293, 291, 292, 294, 291])], FLOATS, 300, 5)
    monkeypatch.setattr("lacewing.backends.webgpu.lowering.attention.PARTS_BYTES", 3 * 4 * 2 * 64 * 20)
    tight = run(case, [*batches, mixed, ([0, 1, 2, 3, 4], [293, 291, 292, 294, 291])], FLOATS, 300, 5)
    assert np.array_equal(whole[:-5], tight[:-5])
    assert nmse(whole[-5:], tight[-5:]) < 1e-12  # rows that the fused kernel prepares in one pass only


@pytest.mark.parametrize("variant", [PLAIN, CODES])
def test_prompts_of_several_rows_keep_their_tiles(variant: str) -> None:
    """Prompt pieces of two rows and decoded tokens of others in one run: each as alone, to the bit."""
    long = PREFILL_TOKENS + 21
    first: list[Batch] = [([2] * 40, list(range(40))), ([0] * 10, list(range(10)))]
    mixed: Batch = ([2] + [1] * long + [0] * PREFILL_TOKENS + [3] * 2, [40, *range(long), *range(10, 10 + PREFILL_TOKENS), 0, 1])
    case = attention_case(50 + len(mixed[0]), 4, 2, 16, 16, window=23, sinks=True)
    assert error(case, [*first, mixed], variant, rows=4) < 1e-10
    found = run(case, [*first, mixed], variant, rows=4)
    alone = run(case, [*first, *singly_by_row([mixed])], variant, rows=4)
    tiles = slice(51, 51 + long + PREFILL_TOKENS)
    assert np.array_equal(found[tiles], alone[tiles])
    assert np.array_equal(found[-2:], alone[-2:])
    assert nmse(found[50:51], alone[50:51]) < 1e-12  # a token alone is prepared by another kernel


def test_a_token_is_the_same_with_longer_neighbours() -> None:
    """A run is planned by its longest context; that changes no bit of a short one."""
    case = attention_case(330, 2, 1, 16, 16)
    batches: list[Batch] = [*prompt(64, 64, 64, 64, 64), ([1] * 5, list(range(5)))]
    mixed: list[Batch] = [*batches[:5], ([0, 1, 1, 1, 1, 1], [320, 0, 1, 2, 3, 4])]
    alone, together = (
        run(case, batches, CODES, 330, 2),
        run(replace(case, x=case.x[[*range(320), 329, *range(320, 325)]]), mixed, CODES, 330, 2),
    )
    assert np.array_equal(alone[320:325], together[321:])


def test_a_prompt_is_the_same_in_any_parts() -> None:
    """Tiles begin at whole multiples of keys: where a prompt is cut changes no bit, as long as each part has many tokens."""
    case = attention_case(64, 4, 2, 32, 32, window=21)
    whole = run(case, prompt(64), FLOATS)
    assert np.array_equal(run(case, prompt(33, PREFILL_TOKENS, 64 - 33 - PREFILL_TOKENS), FLOATS)[:49], whole[:49])
    few = run(case, singly(prompt(64)), FLOATS)
    assert nmse(few, whole) < 1e-10  # another kernel: rounding differs


@pytest.mark.parametrize("dtype", ["f16", "f32", "q8_0"])
def test_pages_in_any_order_and_what_was_never_written(dtype: str) -> None:
    """The pages are full of NaN at first."""
    for variant in (PLAIN, FLOATS):
        width, value_width = (32, 64) if dtype == "q8_0" else (20, 12)
        case = attention_case(COUNT + 300, 2, 1, width, value_width, dtype=dtype)
        step: Any = case.step(backend(variant), 340, 2)  # type: ignore[arg-type]
        with_pages(step, shuffle=5)
        for store in step._states.buffers:
            step._device.write(store.buffer, 0, np.full(store.size, 255, np.uint8))
        batches = [*PROMPT, *([([0] * 60, list(range(s, s + 60))) for s in range(26, 326, 60)])]
        found = run_step(step, batches)[:, : case.out.width]
        step.close()
        assert nmse(found, case.run(batches, None, 340, 2)) < (1e-6 if dtype == "q8_0" else 1e-10)


@pytest.mark.parametrize("shape", [(4, 2, 64, 32), (2, 1, 96, 160)], ids=str)
def test_q8_0_of_keys_and_values(shape: tuple[int, int, int, int]) -> None:
    """A value whose rounding the last bit of a float decides may be another one."""
    for variant in (PLAIN, CODES):
        assert error(attention_case(COUNT, *shape, dtype="q8_0"), PROMPT, variant) < 1e-6


def test_q8_0_of_latent_keys() -> None:
    assert error(attention_case(COUNT, 4, 1, 96, 64, latent=True, dtype="q8_0"), PROMPT, FLOATS) < 1e-6


def test_less_workgroup_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiles that fit the 16 KiB that every GPU has."""
    monkeypatch.setitem(backend(FLOATS).device.limits, "max-compute-workgroup-storage-size", 2**14)
    assert error(attention_case(40, 2, 1, 36, 32), one_batch(40), FLOATS) < 1e-10


@pytest.mark.parametrize("variant", ["dot", CODES])
def test_bytes_for_the_projection(variant: str) -> None:
    """Every kernel leaves bytes for the product that follows; few tokens need no dispatch to make them."""
    batches = prompt(64, 64, 64, 64, 20, 1, 3)
    case = attention_case(280, 2, 1, 32, 32)
    projected = Buffer("projected", 64).view()
    weight = random_weight("w", "Q8_0", 64, 64)
    case = replace(case, ops=(*case.ops, Linear(case.out, ("w",), (projected,))), out=projected, weights={"w": weight})
    assert error(case, batches, variant, 300) < 5e-4
    assert error(case, PROMPT, variant, 300) < 5e-4
    alone = run(case, singly(prompt(8)), variant, 300)  # 8: products of more tokens add in another order
    assert np.array_equal(run(case, prompt(8), variant, 300), alone)
    assert "quantise" not in labels(case, variant, 300, 1)


@pytest.mark.parametrize("variant", ["dot", CODES])
def test_a_nan_among_values_shows_in_their_bytes(variant: str) -> None:
    """It is in one column of what is seen; with splits and without."""
    case = attention_case(300, 2, 1, 32, 32)
    case.x[[2, 280], 64 + 32 + 5] = np.nan
    weight = random_weight("w", "Q8_0", 64, 64)
    case = replace(case, ops=(*case.ops, Linear(case.out, ("w",), (Buffer("p", 64).view(),))), weights={"w": weight})
    case = replace(case, out=Buffer("p", 64).view())
    found = run(case, [([0] * 2, [0, 1]), ([0], [2]), ([0] * 3, [3, 4, 5])], variant, 300)
    assert np.isfinite(found[:2]).all() and np.isnan(found[2:6]).all()
    case.x[2] = 0
    found = run(case, prompt(64, 64, 64, 64, 24, 3, 1), variant, 300)
    assert np.isfinite(found[:280]).all() and np.isnan(found[280:284]).all()


def labels(case: Case, variant: str, context: int, tokens: int) -> list[str]:
    """The dispatches of a run of so many tokens at the end of the context."""
    step: Any = case.step(backend(variant), context)  # type: ignore[arg-type]
    prefill = (tokens,) if tokens >= PREFILL_TOKENS else ()
    run = Run(tokens, tokens, context, prefill, single=tokens == 1)
    found = [d.label for d in step.dispatches if d.grid(run) is not None]
    step.close()
    return found


def test_kernels_of_a_run() -> None:
    case = attention_case(4, 2, 1, 16, 16)
    names = lambda context, tokens: [n for n in labels(case, FLOATS, context, tokens) if n.startswith("attention")]  # noqa: E731
    assert names(ALONE, 1) == ["attention_decode_heads"]
    assert names(ALONE, 2) == names(ALONE, PREFILL_TOKENS - 1) == ["attention_decode"]
    assert names(2 * ALONE, 1) == ["attention_decode_split_heads", "attention_merge"]
    assert names(2 * ALONE, 2) == ["attention_decode_split", "attention_merge"]
    assert names(2 * ALONE, PREFILL_TOKENS) == ["attention_prefill"]


def test_writing_over_a_suffix_forgets_it() -> None:
    batches: Sequence[Batch] = [*one_batch(30), *one_batch(20, 10)]
    assert error(attention_case(50, 4, 2, 16, 16), batches, FLOATS) < 1e-10


def test_what_does_not_fit_is_refused() -> None:
    largest = backend(FLOATS).device.largest_buffer
    case = attention_case(1, 2, 1, 16, 16)
    with pytest.raises(OutOfMemoryError, match=r"the KV cache of a layer takes .* smaller `context`"):
        case.step(backend(FLOATS), largest // 64 + 1)  # type: ignore[arg-type]
    step = case.step(backend(FLOATS), 64)  # type: ignore[arg-type]
    with pytest.raises(OutOfMemoryError, match=r"pages of the KV cache of layer 0 take .* smaller `context`, or `kv_type='q8_0'`"):
        step.grow(0, largest // (128 * 64) + 1)
    assert step.sizes == [1]
    step.close()
    for widths in ((2056, 8), (8, 1032)):
        with pytest.raises(UnsupportedModelError, match="use `backend='cpu'`"):
            attention_case(1, 1, 1, *widths).step(backend(FLOATS), 8)  # type: ignore[arg-type]
