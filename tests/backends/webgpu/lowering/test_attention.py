"""Attention on WebGPU against the reference: heads, windows, chunks, sinks, soft-caps, latent, slots, long contexts, bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lacewing.backends.webgpu.lowering.attention import ALONE, PREFILL_TOKENS, most_splits
from lacewing.backends.webgpu.lowering.dispatches import Run
from lacewing.errors import OutOfMemoryError, UnsupportedModelError
from lacewing.program.ops import Attention, Buffer, Linear, View, WriteKeysValues
from lacewing.program.program import KeyValueShape
from tests.backends.cpu.single_ops import Batch, Case, floats, nmse, normal, one_batch, random_weight, singly
from tests.backends.webgpu.single_ops import CODES, FLOATS, backend, error, run, run_step

PLAIN = "none"
# one token, few, a tile and a bit more, one again
PROMPT: list[Batch] = [([0] * n, list(range(s, s + n))) for s, n in ((0, 1), (1, 3), (4, 21), (25, 1))]
COUNT = 26


def attention_case(
    count: int, heads: int, key_heads: int, width: int, value_width: int, latent: bool = False, sinks: bool = False, **how: Any
) -> Case:
    """Attention of `count` random queries; `latent`: the values are in the keys. `how` goes to the op."""
    sizes = (heads * width, key_heads * width, 0 if latent else key_heads * value_width)
    buffer, out = Buffer("x", sum(sizes)), Buffer("out", heads * value_width).view()
    q, k = View(buffer, 0, sizes[0]), View(buffer, sizes[0], sizes[1])
    v = None if latent else View(buffer, sizes[0] + sizes[1], sizes[2])
    attention = Attention(q, out, 0, heads, key_heads, 1.5 * width**-0.5, sinks="sinks" if sinks else None, **how)
    shape = KeyValueShape(key_heads, width, value_width, values_in_keys=latent)
    weights = {"sinks": floats("sinks", normal(heads, seed=9))} if sinks else {}
    return Case((WriteKeysValues(k, v, 0), attention), normal(count, buffer.width) * 1.5, out, weights, (shape,))


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
    assert error(replace(attention_case(COUNT, 2, 2, 36, 28), half=False), PROMPT, FLOATS) < 1e-10


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
def test_tokens_of_several_slots(variant: str) -> None:
    """Each token sees its own slot; neighbours and their number change no bit."""
    slots, positions = [0, 1, 0, 2, 2, 2, 1] * 3, [0] * 21
    for index, slot in enumerate(slots):
        positions[index] = slots[:index].count(slot)
    batches: list[Batch] = [(slots, positions), ([1, 0], [6, 6])]
    case = attention_case(23, 4, 2, 16, 16, window=5)
    assert error(case, batches, variant, slots=3) < 1e-10
    assert np.array_equal(run(case, batches, variant, slots=3), run(case, singly(batches), variant, slots=3))


def test_a_token_is_the_same_with_longer_neighbours() -> None:
    """A run is planned by its longest context; that changes no bit of a short one."""
    case = attention_case(330, 2, 1, 16, 16)
    batches: list[Batch] = [*prompt(64, 64, 64, 64, 64), ([1] * 5, list(range(5)))]
    mixed: list[Batch] = [*batches[:5], ([0, 1, 1, 1, 1, 1], [320, 0, 1, 2, 3, 4])]
    alone, together = (
        run(case, batches, CODES, 330, 2),
        run(replace(case, x=case.x[[*range(320), 329, *range(320, 325)]]), mixed, CODES, 330, 2),
    )
    assert np.array_equal(alone[320:], together[321:])


def test_a_prompt_is_the_same_in_any_parts() -> None:
    """Tiles begin at whole multiples of keys: where a prompt is cut changes no bit, as long as each part has many tokens."""
    case = attention_case(64, 4, 2, 32, 32, window=21)
    whole = run(case, prompt(64), FLOATS)
    assert np.array_equal(run(case, prompt(33, PREFILL_TOKENS, 64 - 33 - PREFILL_TOKENS), FLOATS)[:49], whole[:49])
    few = run(case, singly(prompt(64)), FLOATS)
    assert nmse(few, whole) < 1e-10  # another kernel: rounding differs


@pytest.mark.parametrize("half", [True, False])
def test_what_was_never_written_does_not_matter(half: bool) -> None:
    """The store is full of NaN at first."""
    for variant in (PLAIN, FLOATS) if half else (FLOATS,):
        case = replace(attention_case(COUNT + 300, 2, 1, 20, 12), half=half)
        step: Any = case.step(backend(variant), 340, 2)  # type: ignore[arg-type]
        for store in step._slots._stores:
            step._device.write(store.buffer, 0, np.full(store.size, 255, np.uint8))
        batches = [*PROMPT, *([([0] * 60, list(range(s, s + 60))) for s in range(26, 326, 60)])]
        found = run_step(step, batches)[:, : case.out.width]
        step.close()
        assert nmse(found, case.run(batches, None, 340, 2)) < 1e-10


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
    found = [d.label for d in step.dispatches if d.grid(Run(tokens, tokens, True, context)) is not None]
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
    with pytest.raises(OutOfMemoryError, match=r"keys and values of a layer take .* smaller --context"):
        attention_case(1, 2, 1, 16, 16).step(backend(FLOATS), largest // 64 + 1)  # type: ignore[arg-type]
    for widths in ((2056, 8), (8, 1032)):
        with pytest.raises(UnsupportedModelError, match="use --backend cpu"):
            attention_case(1, 1, 1, *widths).step(backend(FLOATS), 8)  # type: ignore[arg-type]
