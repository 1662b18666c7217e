"""Choosing on the device: greedy tokens fed back ahead of the host, and the largest logits for a sampler."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lacewing.backends.base import FeedsBack, FindsCandidates, Step, StepLimits
from lacewing.backends.webgpu.device.raw import Readback
from lacewing.engine.sampling import log_sum_exp, top_k
from lacewing.errors import BackendError, NumericError, OptionError
from lacewing.program.ops import Buffer, Embed, Logits
from lacewing.program.program import Program
from tests.backends.cpu.single_ops import floats
from tests.backends.webgpu.single_ops import CODES, VARIANTS, backend
from tests.checkpoints import prompt_of, tiny
from tests.models.running import greedy, open_step, run


def table(rows: np.ndarray, variant: str = CODES) -> Step:
    """A step whose logits after token t are `rows[t]`, (V, V), exactly: its weight is the identity."""
    size = len(rows)
    x = Buffer("x", size).view()
    weights = {"rows": floats("rows", rows), "eye": floats("eye", np.eye(size))}
    program = Program((Embed("rows", x), Logits(x, "eye")), {"rows": rows.shape, "eye": rows.shape}, (), size)
    return backend(variant).compile(program, weights, StepLimits(64, 8))  # type: ignore[arg-type]


@pytest.mark.parametrize("variant", VARIANTS)
def test_greedy_is_what_single_steps_choose(variant: str, tmp_path: Path) -> None:
    _, step = open_step(tiny("llama", "gguf", tmp_path), None, backend(variant), chunk=64)
    assert isinstance(step, FeedsBack)
    ids = prompt_of("llama", 12)
    expected = greedy(step, ids, 20)
    first = int(run(step, ids)[-1].argmax())
    assert [first, *step.greedy(first, 0, len(ids), 19)] == expected
    left = step.greedy(first, 0, len(ids), 19)
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
    assert isinstance(step, FeedsBack)
    assert list(step.greedy(0, 0, 0, 3)) == [5, 68, 3]
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
    tokens = step.greedy(0, 0, 0, 5)
    assert next(tokens) == 1
    with pytest.raises(NumericError, match="NaN or infinite"):
        next(tokens)
    with pytest.raises(NumericError, match="NaN or infinite"):
        step.candidates(1, 0, 0)
    assert list(step.greedy(2, 0, 0, 2)) == [2, 2]  # the step still works
    step.close()


def test_running_something_else_ends_it(tmp_path: Path) -> None:
    _, step = open_step(tiny("llama", "gguf", tmp_path), None, backend(), chunk=64)
    assert isinstance(step, FeedsBack)
    tokens = step.greedy(1, 0, 0, 9)
    next(tokens)
    run(step, [1, 2, 3])
    with pytest.raises(OptionError, match="anew"):
        next(tokens)
    with pytest.raises(OptionError, match="out of range"):
        next(step.greedy(10**6, 0, 0, 3))
    assert len(list(step.greedy(1, 0, step.limits.context - 2, 9))) == 2
    step.close()


def test_two_who_take_turns(tmp_path: Path) -> None:
    """The later one gets what it would get alone; the earlier one is told, and left as it is."""
    _, step = open_step(tiny("llama", "gguf", tmp_path), None, backend(), chunk=64)
    assert isinstance(step, FeedsBack)
    alone = list(step.greedy(5, 0, 0, 6))
    for taken in (1, 2, 3):
        earlier = step.greedy(1, 0, 0, 9)
        for _ in range(taken):
            next(earlier)
        assert list(step.greedy(5, 0, 0, 6)) == alone
        with pytest.raises(OptionError, match="anew"):
            next(earlier)
    left = step.greedy(1, 0, 0, 9)
    next(left)
    with step._lock:  # type: ignore[attr-defined]
        left.close()  # a garbage collection during a run may do this
    assert list(step.greedy(5, 0, 0, 6)) == alone
    step.close()


def test_whoever_is_interrupted_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A submission that uses a mapped buffer would end the process."""
    _, step = open_step(tiny("llama", "gguf", tmp_path), None, backend(), chunk=64)
    works: list[Callable[[], object]] = [
        lambda: run(step, [1, 2, 3]).tolist(),
        lambda: list(step.greedy(1, 0, 0, 4)),  # type: ignore[attr-defined]
        lambda: step.candidates(1, 0, 0).logits.tolist(),  # type: ignore[attr-defined]
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
    for work in (lambda: run(step, [1]), lambda: next(step.greedy(1, 0, 0, 4)), lambda: step.candidates(1, 0, 0)):  # type: ignore[attr-defined]
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
    for work in (lambda: list(step.greedy(0, 0, 0, 2)), lambda: step.candidates(0, 0, 0)):
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
    assert isinstance(step, FindsCandidates)
    for token in (0, 1):
        row, found = logits[:, token], step.candidates(token, 0, 0)
        expected = top_k(row, min(step.most_candidates, size))
        np.testing.assert_array_equal(found.ids, expected)
        np.testing.assert_array_equal(found.logits, row[expected])
        assert abs(found.log_sum - log_sum_exp(row)) < 1e-5
    step.close()
