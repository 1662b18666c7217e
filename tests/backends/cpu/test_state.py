"""Pages and units on the CPU: their bytes in and out, where they lie, what reads them, and runs that are aborted."""

from __future__ import annotations

import mmap
import random
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lacewing.backends.batch import Batch, StepLimits
from lacewing.backends.cpu import CpuBackend
from lacewing.backends.cpu.memory import Reservation
from lacewing.backends.cpu.state import keys_in, keys_out
from lacewing.backends.reference.backend import ReferenceBackend
from lacewing.backends.step import Step
from lacewing.errors import Cancelled, OptionError, OutOfMemoryError
from lacewing.options import KV_TYPES
from lacewing.program.ops import Buffer, ShortConvolution
from lacewing.program.states import PAGE, FixedState, PagedState, Part
from tests.backends.cpu.checks import attention_case, check_against_reference, state_case
from tests.backends.cpu.single_ops import Batch as Places
from tests.backends.cpu.single_ops import Case, floats, normal, one_batch, singly
from tests.checkpoints import prompt_of, tiny
from tests.models.running import open_step, run
from tests.paged import run as run_paged
from tests.paged import with_pages


@pytest.mark.parametrize("dtype", KV_TYPES)
def test_states_equal_the_reference(dtype: str) -> None:
    case = state_case(55, dtype)
    batches = [*one_batch(1), *one_batch(2, 1), *one_batch(17, 3), *one_batch(33, 20), *one_batch(1, 53), *one_batch(1, 54)]
    found = check_against_reference(case, batches, 5e-6)
    assert np.array_equal(case.run(singly(batches), 2), found)


@pytest.mark.parametrize("width", [1, 20, 48, 100])
def test_a_convolution_in_place(width: int) -> None:
    x = Buffer("x", width).view()
    weights = {"taps": floats("taps", normal(width, 4, seed=1), "F16")}
    case = Case((ShortConvolution(x, "taps", x, 0),), normal(12, width), x, weights, (FixedState((("conv", (3, width)),)),))
    found = check_against_reference(case, [*one_batch(5), *one_batch(1, 5), *one_batch(6, 6)], 1e-6)
    assert np.array_equal(case.run(one_batch(12), 2), found)


@pytest.mark.parametrize("shape", [(4, 2, 32, 32), (6, 3, 64, 96), (5, 5, 96, 32), (2, 1, 256, 256), (14, 2, 64, 64)], ids=str)
def test_q8_0_over_shapes_of_heads(shape: tuple[int, int, int, int]) -> None:
    batches: list[Places] = [*one_batch(1), *one_batch(2, 1), *one_batch(52, 3)]
    check_against_reference(attention_case(55, *shape).stored_as("q8_0"), batches, 1e-4)


def test_q8_0_of_numbers_that_are_none_shows() -> None:
    case = attention_case(9, 4, 2, 32, 32).stored_as("q8_0")
    for bad in (np.nan, np.inf):
        case.x[5, 200] = bad
        found = case.run([*one_batch(5), *one_batch(4, 5)], 2)
        assert np.isfinite(found[:5]).all() and not np.isfinite(found[5:]).all(axis=1).any()


@pytest.mark.parametrize("dtype", KV_TYPES)
def test_the_order_of_keys_in_and_out(dtype: str) -> None:
    part = Part("keys", 3, 64, dtype)
    data = np.random.default_rng(1).integers(0, 256, part.page_bytes, np.uint8)
    assert np.array_equal(keys_out(keys_in(data, part), part), data)


@pytest.mark.parametrize("dtype", KV_TYPES)
def test_bytes_mean_the_same_on_the_reference(dtype: str) -> None:
    """Pages and units written by one backend, read by the other."""
    case = state_case(60, dtype)
    ours, theirs = case.step(CpuBackend(2), 200), case.step(ReferenceBackend(exact=False), 200)
    for step in (ours, theirs):
        forward(step, one_batch(50), 0)
    for group, of in enumerate(ours.groups):
        ids = list(range(ours.sizes[group])) if of.paged else [1]
        page = ours.read(group, ids)
        assert page.shape == (len(ids), of.nbytes)
        theirs.write(group, ids, page)
        assert np.array_equal(theirs.read(group, ids), page)
        if dtype == "f32" or not of.paged:
            continue
        other = with_pages(case.step(CpuBackend(1), 200))
        other.write(group, ids, theirs.read(group, ids))
        assert np.array_equal(other.read(group, ids), page)
        other.close()
    assert np.allclose(forward(ours, one_batch(10, 50), 50), forward(theirs, one_batch(10, 50), 50), atol=1e-4)
    ours.close()


def forward(step: Step, batches: list[Places], first: int) -> np.ndarray:
    """Rows of x from `first` on."""
    found = []
    for rows, positions in batches:
        count = len(rows)
        found.append(run_paged(step, np.arange(first, first + count), rows, positions, np.arange(count)).copy())
        first += count
    return np.concatenate(found)


@pytest.mark.parametrize("dtype", KV_TYPES)
def test_what_lies_behind_the_last_position_is_never_used(dtype: str) -> None:
    """Pages and units come back with the bytes of others, here of numbers that are none."""
    case = state_case(60, dtype)
    batches = [*one_batch(30), *one_batch(1, 30), *one_batch(29, 31)]
    clean, poisoned = case.step(CpuBackend(2), 200), case.step(CpuBackend(2), 200)
    for group, of in enumerate(poisoned.groups):
        ids = list(range(poisoned.sizes[group]))
        poisoned.write(group, ids, np.full((len(ids), of.nbytes), 0xFF, np.uint8))
    assert np.array_equal(forward(poisoned, batches, 0), forward(clean, batches, 0))
    clean.close()
    poisoned.close()


LENGTHS = (150, 37, 131)


@pytest.fixture(scope="module")
def alone() -> dict[str, list[np.ndarray]]:
    """Of each type, what each sequence gives by itself."""
    found = {}
    for dtype in KV_TYPES:
        case, starts = state_case(sum(LENGTHS), dtype), np.cumsum((0, *LENGTHS))
        found[dtype] = []
        for start, length in zip(starts, LENGTHS, strict=False):
            step = case.step(CpuBackend(1), 160)
            found[dtype].append(forward(step, pieces(length), int(start)))
            step.close()
    return found


def pieces(length: int) -> list[Places]:
    return [batch for first in range(0, length, 64) for batch in one_batch(min(64, length - first), first)]


@given(st.sampled_from(KV_TYPES), st.integers(1, 3), st.integers(0, 2**32 - 1))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_do_not_know_of_each_other(alone: dict[str, list[np.ndarray]], dtype: str, threads: int, seed: int) -> None:
    """Any company, any chunking, any placing of the pages: the bits of each sequence are those that it gives alone."""
    rng, case, starts = random.Random(seed), state_case(sum(LENGTHS), dtype), np.cumsum((0, *LENGTHS))
    step = case.step(CpuBackend(threads), 160, len(LENGTHS), shuffle=seed)
    done, found = [0] * len(LENGTHS), [[], [], []]  # type: ignore[var-annotated]
    while any(at < length for at, length in zip(done, LENGTHS, strict=True)):
        tokens, rows, positions = [], [], []  # type: ignore[var-annotated]
        for row in rng.sample(range(len(LENGTHS)), len(LENGTHS)):
            room = min(LENGTHS[row] - done[row], 64 - len(tokens))
            count = rng.choice((0, 1, room // 2, room)) if room > 0 else 0
            places = range(done[row], done[row] + count)
            tokens += [int(starts[row]) + place for place in places]
            rows += [row] * count
            positions += places
        if tokens:
            logits = run_paged(step, tokens, rows, positions, np.arange(len(tokens))).copy()
            for row in set(rows):
                found[row].append(logits[np.array(rows) == row])
                done[row] += rows.count(row)
    for row, expected in enumerate(alone[dtype]):
        assert np.array_equal(np.concatenate(found[row]), expected)
    step.close()


@pytest.mark.parametrize("positions", [1, 7, 17, 128])
@pytest.mark.parametrize("dtype", KV_TYPES)
def test_so_many_positions_of_a_page_are_copied(dtype: str, positions: int) -> None:
    """Of each head of all parts of all members, whatever their order; of units all."""
    case, random = state_case(60, dtype), np.random.default_rng(positions)
    step = case.step(CpuBackend(1), 200)
    for group, of in enumerate(step.groups):
        data = random.integers(0, 256, (2, of.nbytes), np.uint8)
        step.grow(group, 2)
        step.write(group, [0, 1], data)
        step.copy(group, [(0, 1)], positions)
        source, copied = step.read(group, [0, 1])
        assert np.array_equal(source, data[0])
        if isinstance(of.state, PagedState):
            shape = (-1, PAGE, of.state.parts[0].row_bytes)  # keys and values are equally wide
            source, copied = source.reshape(shape)[:, :positions], copied.reshape(shape)[:, :positions]
        assert np.array_equal(copied, source)
    step.close()


@pytest.mark.parametrize("positions", [7, 128])
def test_a_page_that_is_copied_goes_on_alone(positions: int) -> None:
    """A shared prefix: two rows have its page, one writes to a copy, in which something else was before."""
    case = attention_case(160, 4, 2, 16, 16)
    step = case.step(CpuBackend(2), 256, 2)
    expected = forward(step, pieces(140), 0)
    step.grow(0, 6)
    step.write(0, [5], np.full((1, step.groups[0].nbytes), 0xFF, np.uint8))
    step.copy(0, [(1, 5)], positions)
    step.put_table(0, 1, 0, [0, 5])
    found = step.run(Batch.of(list(range(140, 150)), 135, np.arange(10), row=1)).copy()
    again = forward(step, [([0] * 5, list(range(135, 140)))], 135)
    assert np.array_equal(again, expected[135:])  # the original is as it was
    straight = forward(step, [([0] * 10, list(range(135, 145)))], 140)
    assert np.array_equal(found, straight)
    step.close()


def test_pages_cost_nothing_until_they_are_written_and_are_given_back() -> None:
    case = attention_case(8, 16, 16, 256, 256)
    step = case.step(CpuBackend(1), 256)
    group, process = step.groups[0], psutil.Process()
    count = 2**28 // group.nbytes
    before = process.memory_info().rss
    step.grow(0, count)
    assert process.memory_info().rss - before < 2**22 and step.state_bytes == count * group.nbytes
    for page in range(count):
        step.write(0, [page], np.full((1, group.nbytes), 1, np.uint8))
    assert process.memory_info().rss - before > 2**27
    step.grow(0, 2)
    assert process.memory_info().rss - before < 2**26
    assert (step.read(0, [1]) == 1).all()
    step.grow(0, 4)
    assert not step.read(0, [3]).any()
    with pytest.raises(OutOfMemoryError, match="pages of"):
        step.grow(0, 2**45)
    assert step.sizes == [4]
    step.close()


def test_what_is_reserved_halves_until_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, whole = [], mmap.mmap

    def scarce(fd: int, nbytes: int, *flags: int) -> mmap.mmap:
        asked.append(nbytes)
        if nbytes > 2**20:
            raise OSError(12, "Cannot allocate memory")
        return whole(fd, nbytes, *flags)

    monkeypatch.setattr("lacewing.backends.cpu.memory.mmap.mmap", scarce)
    assert Reservation(2**18).nbytes <= 2**20 < min(asked[:-1]) and asked == sorted(asked, reverse=True)
    assert Reservation(2**20).nbytes == 2**20
    with pytest.raises(MemoryError):
        Reservation(2**21)


def test_positions_without_a_page_are_refused() -> None:
    case = attention_case(20, 4, 2, 16, 16)
    step = CpuBackend(1).compile(case.program, case.all_weights(case.program.vocab_size), StepLimits(400, 64, 2))
    with pytest.raises(OptionError, match="row 1 has no page in group 0"):
        step.run(Batch.of([1], 0, [0], row=1))
    step.grow(0, 2)
    step.put_table(0, 1, 0, [1])
    assert np.isfinite(step.run(Batch.of(list(range(20)), 0, [19], row=1))).all()
    with pytest.raises(OptionError, match="no page"):
        step.run(Batch.of([1, 2], 127, [1], row=1))
    with pytest.raises(OptionError, match="page 2 of group 0 does not exist"):
        step.put_table(0, 1, 1, [2])
    step.close()
    calls = (
        lambda: step.grow(0, 1),
        lambda: step.read(0, [0]),
        lambda: step.copy(0, [(0, 1)]),
        lambda: step.run(Batch.of([1], 0, [])),
    )
    for refused in calls:
        with pytest.raises(OptionError, match="closed"):
            refused()


def test_an_aborted_run_stops_soon_and_leaves_the_step_usable(tmp_path: Path) -> None:
    """Whenever it comes: the run ends as cancelled or whole, and the next one has the bits that it would have had."""
    ids = prompt_of("llama-wide", 400)
    _, step = open_step(tiny("llama-wide", "gguf", tmp_path, "Q4_0"), 512, CpuBackend(3))
    expected = run(step, ids)
    began = time.perf_counter()
    run(step, ids)
    whole, cancelled = time.perf_counter() - began, 0
    for share in (0.0, 0.1, 0.3, 0.5, 0.9, 1.5) * 5:  # a crowded machine wakes timers late
        if cancelled == 3:
            break
        timer = threading.Timer(share * whole, step.abort)
        timer.start()
        try:
            run(step, ids)
        except Cancelled:
            cancelled += 1
        timer.join()
        assert np.array_equal(run(step, ids), expected)
    assert cancelled
    step.abort()  # nothing runs: nothing happens
    assert np.array_equal(run(step, ids), expected)
    step.close()
