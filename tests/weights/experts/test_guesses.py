"""Experts that are read before they are chosen: the right ones stay, the others cost nothing but their bytes."""

import time

import numpy as np
import pytest

from lacewing.errors import ModelFormatError
from lacewing.formats.checkpoint import ByteRange
from lacewing.formats.read import identity
from lacewing.weights.experts import ExpertCache, SlotCount
from tests.weights.experts.test_cache import BYTES, EXPERTS, SlowReader, fetch

SMALL = 700


class Stack:
    def __init__(self, path, at, nbytes):
        self.shape = (EXPERTS, 10, 10)
        self.ranges = (ByteRange(path, at, EXPERTS * nbytes),)


@pytest.fixture(params=[BYTES, SMALL])
def cache(tmp_path, request):
    """Two layers; with SMALL the first one's slots are smaller than the shared ones."""
    path = tmp_path / "experts"
    np.random.default_rng(0).integers(0, 256, 4 * EXPERTS * BYTES + 77, np.uint8).tofile(path)
    second = 33 + 2 * EXPERTS * BYTES
    stacks = {
        "a.up": Stack(path, 33, BYTES),
        "a.down": Stack(path, 33 + EXPERTS * BYTES, BYTES),
        "b.up": Stack(path, second, request.param),
        "b.down": Stack(path, second + EXPERTS * request.param, request.param),
    }
    made = ExpertCache(stacks, [(("a.up", "a.down"), 2), (("b.up", "b.down"), 2)], {path: identity(path)}, SlotCount(4, 4))
    made.content, made.size, made.second = np.fromfile(path, np.uint8), request.param, second
    yield made
    made.close()


def free_slots(cache):
    """Shared slots that can be taken, once no read that was dropped writes to one any more."""
    until = time.monotonic() + 20
    while any(map(cache.pool.is_busy, cache.pool._free)) and time.monotonic() < until:
        time.sleep(0.01)
    return len(cache.pool.take(9))


def check_second(cache, expert):
    layer = cache.layers[1]
    for at, name in ((cache.second, "b.up"), (cache.second + EXPERTS * cache.size, "b.down")):
        check_bytes_at(cache.content[at + expert * cache.size :][: cache.size], int(layer.addresses[name][expert]))


def check_bytes_at(expected, address):
    import ctypes

    np.testing.assert_array_equal(np.frombuffer(ctypes.string_at(address, len(expected)), np.uint8), expected)


def test_right_guesses_stay_and_wrong_ones_are_dropped(cache):
    layer = cache.layers[1]
    fetch(layer, [0, 1])
    for turn in range(6):  # slots and shared ones change places again and again
        right, wrong = 2 + turn, (9 + turn) % EXPERTS
        layer.expect([0, right, wrong], counted=True)
        assert not layer.addresses["b.up"][right]  # kernels see it when it was chosen
        fetch(layer, [0, right])
        for expert in np.flatnonzero(layer.addresses["b.up"]).tolist():
            check_second(cache, expert)
        assert layer.addresses["b.up"][right]
    found = cache.statistics
    assert 6 <= found.guessed <= 12 and found.guessed_right == 6 and found.wasted_bytes <= 6 * 2 * cache.size
    assert found.misses == 8  # what was guessed was missing all the same
    assert found.nbytes == 8 * 2 * cache.size + found.wasted_bytes
    assert free_slots(cache) == 4  # no slot was lost


def test_what_is_needed_comes_before_what_was_guessed(cache):
    first, second = cache.layers
    second.expect([3, 4])
    assert len(fetch(first, list(range(10)), few=False)) > 3  # drops the guess, and uses all shared slots
    assert free_slots(cache) == 4


def test_a_guess_is_dropped_that_was_not_begun(cache):
    slow = SlowReader(cache.reader)
    first, second = cache.layers
    second.expect([3, 4], counted=True)
    second.expect([5, 6], counted=True)  # the four readers are at the first ones
    first.expect([1])
    slow.go.set()
    fetch(second, [5, 6])
    assert cache.statistics.guessed == 4 and cache.statistics.guessed_right == 0
    assert cache.statistics.wasted_bytes <= 2 * (2 * cache.size + BYTES)
    check_second(cache, 5)


def test_a_guess_that_was_abandoned(cache):
    slow = SlowReader(cache.reader)
    layer = cache.layers[1]
    layer.expect([3, 4])

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(layer, [3, 4, 5], check=stop)
    slow.go.set()
    while any(cache.pool.is_busy(slot) for slot in layer._slots):
        time.sleep(0.01)
    fetch(layer, [3, 6])
    check_second(cache, 3)
    check_second(cache, 6)
    assert free_slots(cache) == 4


def test_guesses_of_a_run_that_was_abandoned_before_it_came_to_them(cache):
    """Their slots are free although somebody keeps what was raised, as a log or a debugger does."""
    slow = SlowReader(cache.reader)
    layer = cache.layers[1]
    layer.expect([4, 5])

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as kept:
        fetch(layer, [0, 1, 2, 3, 4, 5, 8, 9], few=False, check=stop)  # the first two waves are of the others
    slow.go.set()
    assert free_slots(cache) == 4
    assert kept.tb


def test_a_guess_that_could_not_be_read(cache, monkeypatch):
    """The run reads it again, and fails only if that fails."""
    layer, read, failed = cache.layers[1], cache.reader._read, []

    def fails_once(part, region):
        if not failed:
            failed.append(part)
            raise ModelFormatError(part.path, "cannot be read: Input/output error")
        read(part, region)

    monkeypatch.setattr(cache.reader, "_read", fails_once)
    layer.expect([3], counted=True)
    until = time.monotonic() + 10
    while not layer._guessed[3].is_there and time.monotonic() < until:
        time.sleep(0.01)
    fetch(layer, [3, 5])
    check_second(cache, 3)
    assert failed and cache.statistics.guessed == 1 and cache.statistics.guessed_right == 0
    assert free_slots(cache) == 4
    monkeypatch.setattr(cache.reader, "_read", lambda part, region: failed.clear() or fails_once(part, region))
    with pytest.raises(ModelFormatError, match="Input/output error"):
        fetch(layer, [8])


def test_a_prompt_begins_the_next_layer_while_the_last_experts_are_computed(cache):
    first, second = cache.layers
    fetch(second, [0, 1])
    fetch(first, list(range(EXPERTS)), few=False)
    assert cache.pool._guess is second._guessed and sorted(second._guessed) == [2, 3]
    before = cache.statistics.nbytes
    fetch(second, list(range(EXPERTS)), few=False)
    assert cache.statistics.nbytes == before + (EXPERTS - 2) * 2 * cache.size  # each once
    assert second.addresses["b.up"][0] and second.addresses["b.up"][1]  # what answers use stays
    fetch(first, list(range(EXPERTS)), few=False)
    assert second._guessed
    fetch(second, [0, 1])  # drops them, which are no guesses of a router
    assert cache.statistics.guessed == cache.statistics.wasted_bytes == 0
    assert free_slots(cache) == 4
