"""Choosing on the device: greedy tokens fed back ahead of the host, and the largest logits for a sampler."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lacewing.backends.batch import Batch, Candidates, StepLimits, Wanted
from lacewing.backends.choice import candidates_of, log_sum_exp, top_k
from lacewing.backends.step import Step
from lacewing.backends.webgpu.device.raw import Readback
from lacewing.errors import BackendError, NumericError, OptionError
from lacewing.program.ops import Buffer, Embed, Logits
from lacewing.program.program import Program
from tests import paged
from tests.backends.cpu.single_ops import floats
from tests.backends.webgpu.single_ops import CODES, VARIANTS, backend
from tests.checkpoints import prompt_of, tiny
from tests.models.running import greedy, open_step, run


def table(rows: np.ndarray, variant: str = CODES, count: int = 1) -> Step:
    """A step of `count` rows whose logits after token t are `rows[t]`, (V, V), exactly: its weight is the identity."""
    size = len(rows)
    x = Buffer("x", size).view()
    weights = {"rows": floats("rows", rows), "eye": floats("eye", np.eye(size))}
    program = Program((Embed("rows", x), Logits(x, "eye")), {"rows": rows.shape, "eye": rows.shape}, (), size)
    return backend(variant).compile(program, weights, StepLimits(64, 8, count))  # type: ignore[arg-type]


def ids_of(step: Step, token: int, count: int, position: int = 0) -> Ids:
    """Greedy tokens of row 0 after a token."""
    tokens = step.greedy(paged.batch(step, [token], [0], [position], [0]), count)
    return Ids(tokens)


class Ids(Iterator[int]):
    """The first row of each."""

    def __init__(self, tokens: Iterator[np.ndarray]):
        self.tokens: Any = tokens

    def __next__(self) -> int:
        return int(next(self.tokens)[0])

    def close(self) -> None:
        self.tokens.close()


def largest(step: Step, token: int, count: int = 64) -> Candidates:
    return step.choose(paged.batch(step, [token], [0], [0], [0]), [Wanted(count)])[0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_greedy_is_what_single_steps_choose(variant: str, tmp_path: Path) -> None:
    _, step = open_step(tiny("llama", "gguf", tmp_path), None, backend(variant), chunk=64)
    ids = prompt_of("llama", 12)
    expected = greedy(step, ids, 20)
    first = int(run(step, ids)[-1].argmax())
    assert [first, *ids_of(step, first, 19, len(ids))] == expected
    left = ids_of(step, first, 19, len(ids))
    assert [next(left), next(left)] == expected[1:3]
    left.close()  # what is under way does no harm
    assert greedy(step, ids, 20) == expected
    step.close()


def test_ties_go_to_the_lowest_id() -> None:
    rows = np.full((70, 70), -3, np.float32)
    rows[0, [5, 9, 69]] = 2
    rows[5, [68, 69]] = 7
    rows[68] = -1e30
    rows[68, 3] = -1e29
    step = table(rows, "none")
    assert list(ids_of(step, 0, 3, 0)) == [5, 68, 3]
    step.close()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 40, 69])
def test_broken_logits_are_an_error(value: float, place: int) -> None:
    rows = np.zeros((70, 70), np.float32)
    rows[0, 1] = rows[2, 2] = 1
    rows[1, place] = value
    weights = {"rows": floats("rows", rows), "eye": floats("eye", np.eye(70))}
    x = Buffer("x", 70).view()
    program = Program((Embed("rows", x), Logits(x, "eye")), {"rows": rows.shape, "eye": rows.shape}, (), 70)
    step = backend().compile(program, weights, StepLimits(64, 8))  # type: ignore[arg-type]
    tokens = ids_of(step, 0, 5, 0)
    assert next(tokens) == 1
    with pytest.raises(NumericError, match="NaN or infinite"):
        next(tokens)
    with pytest.raises(NumericError, match="NaN or infinite"):
        largest(step, 1)
    assert list(ids_of(step, 2, 2, 0)) == [2, 2]  # the step still works
    step.close()


def test_running_something_else_ends_it(tmp_path: Path) -> None:
    _, step = open_step(tiny("llama", "gguf", tmp_path), None, backend(), chunk=64)
    tokens = ids_of(step, 1, 9, 0)
    next(tokens)
    run(step, [1, 2, 3])
    with pytest.raises(OptionError, match="anew"):
        next(tokens)
    with pytest.raises(OptionError, match="out of range"):
        next(ids_of(step, 10**6, 3, 0))
    tokens = ids_of(step, 1, 9, step.limits.context - 2)
    assert len([next(tokens), next(tokens)]) == 2
    with pytest.raises(OptionError, match="position 256 is out of range"):
        next(tokens)
    step.close()


def test_two_who_take_turns(tmp_path: Path) -> None:
    """The later one gets what it would get alone; the earlier one is told, and left as it is."""
    _, step = open_step(tiny("llama", "gguf", tmp_path), None, backend(), chunk=64)
    alone = list(ids_of(step, 5, 6, 0))
    for taken in (1, 2, 3):
        earlier = ids_of(step, 1, 9, 0)
        for _ in range(taken):
            next(earlier)
        assert list(ids_of(step, 5, 6, 0)) == alone
        with pytest.raises(OptionError, match="anew"):
            next(earlier)
    left = ids_of(step, 1, 9, 0)
    next(left)
    with step._lock:
        left.close()  # a garbage collection during a run may do this
    assert list(ids_of(step, 5, 6, 0)) == alone
    step.close()


def test_whoever_is_interrupted_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A submission that uses a mapped buffer would end the process."""
    _, step = open_step(tiny("llama", "gguf", tmp_path), None, backend(), chunk=64)
    works: list[Callable[[], object]] = [
        lambda: run(step, [1, 2, 3]).tolist(),
        lambda: list(ids_of(step, 1, 4, 0)),
        lambda: largest(step, 1).logits.tolist(),
    ]
    expected = [work() for work in works]
    for name in ("start", "finish", "bytes"):
        real = getattr(Readback, name)
        for work in works:

            def interrupted(readback: Readback, *arguments: Any, real: Any = real) -> None:
                real(readback, *arguments)
                raise KeyboardInterrupt

            with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
                patched.setattr(Readback, name, interrupted)
                work()
    assert [work() for work in works] == expected
    step.close()


def test_a_loss_that_shows_while_it_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next model is brought to a device that is opened anew."""
    _, step = open_step(tiny("llama", "gguf", tmp_path), None, backend(), chunk=64)
    for work in (lambda: run(step, [1]), lambda: next(ids_of(step, 1, 4, 0)), lambda: largest(step, 1)):
        with monkeypatch.context() as patched, pytest.raises(BackendError, match="the GPU was lost while it computed"):
            patched.setattr(Readback, "finish", lambda readback, index, eager=False: 3)
            work()
        assert backend().device.lost
        backend().device.lost = False
    step.close()


def test_nothing_above_minus_infinity_is_an_error() -> None:
    x = Buffer("x", 2).view()
    units, out = np.zeros((70, 2), np.float32), np.zeros((70, 2), np.float32)
    units[0, 0] = units[1, 1] = 1
    out[:, 0], out[7, 1] = -np.inf, 1
    weights = {"rows": floats("rows", units), "out": floats("out", out)}
    program = Program((Embed("rows", x), Logits(x, "out")), {name: (70, 2) for name in weights}, (), 70)
    step = backend().compile(program, weights, StepLimits(8, 8))  # type: ignore[arg-type]
    for work in (lambda: list(ids_of(step, 0, 2, 0)), lambda: largest(step, 0)):
        with pytest.raises(NumericError, match="NaN or infinite"):
            work()
    step.close()


@pytest.mark.parametrize("size", [3, 64, 2049, 6000])
def test_candidates_are_the_largest_logits(size: int) -> None:
    """Among equals the lower id comes first. The weight of the logits is the table itself: x is one of its unit vectors."""
    rng = np.random.default_rng(size)
    logits = rng.choice(np.linspace(-8, 8, 40), (size, 2)).astype(np.float32)
    x = Buffer("x", 2).view()
    units = np.zeros((size, 2), np.float32)
    units[0, 0] = units[1, 1] = units[2, 0] = 1
    weights = {"rows": floats("rows", units), "out": floats("out", logits)}
    program = Program((Embed("rows", x), Logits(x, "out")), {"rows": (size, 2), "out": (size, 2)}, (), size)
    step = backend().compile(program, weights, StepLimits(8, 8))  # type: ignore[arg-type]
    for token in (0, 1):
        row, found = logits[:, token], largest(step, token)
        expected = top_k(row, min(step.most_candidates, size))
        np.testing.assert_array_equal(found.ids, expected)
        np.testing.assert_array_equal(found.logits, row[expected])
        assert abs(found.log_sum - log_sum_exp(row)) < 1e-5
    step.close()


def several(size: int, rows: int) -> Step:
    """A step whose logits after token t are row t of random ones, with rooms for so many rows."""
    values = np.random.default_rng(size).standard_normal((size, 40)).astype(np.float32)
    x = Buffer("x", 40).view()
    weights = {"rows": floats("rows", values), "out": floats("out", values[::-1].copy())}
    program = Program((Embed("rows", x), Logits(x, "out")), {name: (size, 40) for name in weights}, (), size)
    return backend().compile(program, weights, StepLimits(64, 16, rows))


@pytest.mark.parametrize("size", [70, 6000])
def test_several_rows_choose_at_once(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of the largest, of several rows, in one pass and in several, with masks and biases."""
    monkeypatch.setattr("lacewing.backends.webgpu.lowering.compiler.LOGIT_BYTES", 4 * size * 3)
    step = several(size, 5)
    asked = paged.batch(step, [7, 3, 50, 9, 60], range(5), [0] * 5, [4, 0, 2, 3, 1])
    logits = step.run(asked).copy()
    mask = np.full(-(-size // 32), 0xFFFF0000, np.uint32)
    for wanted in (
        [Wanted()] * 5,
        [Wanted(1 + 15 * row) for row in range(5)],
        [Wanted(3, mask), Wanted(70), *[Wanted(2, None, {5: 9.0})] * 3],
    ):
        for row, (found, each) in enumerate(zip(step.choose(asked, wanted), wanted, strict=True)):
            expected = candidates_of(logits[row], each)
            np.testing.assert_array_equal(found.ids, expected.ids)
            np.testing.assert_array_equal(found.logits, expected.logits)
            assert abs(found.log_sum - expected.log_sum) < 1e-5
    step.close()


@pytest.mark.parametrize("size", [45, 6000])
def test_masks_and_biases_are_the_devices(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No row of logits comes to the host; masks are asked for when the logits are under way, and leave other rows as they are."""
    step = several(size, 3)
    asked = paged.batch(step, [7, 3, 40], range(3), [0] * 3, [2, 0, 1])
    logits = step.run(asked).copy()
    monkeypatch.setattr(step, "_run", None)
    random = np.random.default_rng(size)
    free = [[(found.ids, found.logits, found.log_sum)] for found in step.choose(asked, [Wanted(40)] * 3)]
    for turn in range(12):
        masks = [random.integers(0, 2**32, -(-size // 32), dtype=np.uint32) for _ in range(3)]
        bias = {int(token): float(random.normal()) * 4 for token in random.choice(size, min(size, 1024), replace=False)}
        wanted = [
            Wanted(1 + turn, masks[0], bias if turn % 3 == 1 else None),
            Wanted(40) if turn % 4 else Wanted(3, None, {5: 2.0, size - 1: 40.0, 0: -3.0}),
            Wanted(5, masks[2] if turn % 2 else None),
        ]
        calls: list[int] = []

        def late(mask: np.ndarray | None, calls: list[int] = calls) -> Callable[[], np.ndarray | None]:
            return lambda: (calls.append(1), mask)[1]

        given = [Wanted(each.count, late(each.mask), each.bias) for each in wanted]  # type: ignore[arg-type]
        for row, (found, each) in enumerate(zip(step.choose(asked, given if turn % 5 else wanted), wanted, strict=True)):
            expected = candidates_of(logits[row], each)
            np.testing.assert_array_equal(found.ids, expected.ids)
            np.testing.assert_array_equal(found.logits, expected.logits)
            if each.plain and each.count == 40:
                np.testing.assert_equal(free[row], [(found.ids, found.logits, found.log_sum)])
        assert len(calls) == (3 if turn % 5 else 0)
        if turn in (3, 4):  # between others
            np.testing.assert_equal([[(f.ids, f.logits, f.log_sum)] for f in step.choose(asked, [Wanted(40)] * 3)], free)
    with pytest.raises(OptionError, match="allows none"):
        step.choose(asked, [Wanted(), Wanted(1, np.zeros(-(-size // 32), np.uint32)), Wanted()])
    with pytest.raises(OptionError, match="words of 32 bits"):
        step.choose(asked, [Wanted(), Wanted(1, np.ones(1 + size // 2, np.uint32)), Wanted()])
    np.testing.assert_equal([[(f.ids, f.logits, f.log_sum)] for f in step.choose(asked, [Wanted(40)] * 3)], free)
    step.close()


@pytest.mark.parametrize("name", ["llama", "lfm2"])
def test_greedy_tokens_of_several_rows(name: str, tmp_path: Path) -> None:
    """Of a hybrid too: keys and values, and units that take turns; rows of other lengths, as step by step."""
    _, step = open_step(tiny(name, "gguf", tmp_path), None, backend(), rows=4, chunk=64)
    prompts = {0: prompt_of(name, 5), 3: prompt_of(name, 12), 1: prompt_of(name, 9)[::-1]}
    rows = list(prompts)

    def begin() -> Batch:
        for row, ids in prompts.items():
            paged.run_row(step, ids[:-1], 0, row)
        last = [ids[-1] for ids in prompts.values()]
        return paged.batch(step, last, rows, [len(ids) - 1 for ids in prompts.values()], range(3))

    found = np.array(list(step.greedy(begin(), 12)))
    assert found.shape == (12, 3)
    batch, expected = begin(), []
    for _ in range(12):
        ids = step.run(batch).argmax(axis=1)
        expected.append(ids)
        batch = paged.batch(step, ids, rows, batch.positions + 1, range(3))
    assert np.array_equal(found, expected)
    with pytest.raises(OptionError, match="different rows"):
        next(step.greedy(paged.batch(step, [1, 2], [0, 0], [0, 1], [0, 1]), 3))
    step.close()
