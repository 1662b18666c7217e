"""The slots of a layer: who stays, who goes, and what happens when a file or a run fails."""

import errno
import fcntl
import os
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lacewing.errors import Cancelled, ModelFormatError
from lacewing.formats.checkpoint import ByteRange
from lacewing.formats.read import identity
from lacewing.weights.experts import ExpertCache, SlotCount, descriptors
from lacewing.weights.experts import slots as slots_module
from lacewing.weights.experts.readers import Readers
from lacewing.weights.experts.reading import ExpertReader
from lacewing.weights.experts.source import LayerSlots, least_slots, padded, slots_within
from tests.timing import in_time, timely

EXPERTS, BYTES = 12, 5000  # of each of two stacks; no whole number of pages


class Stack:
    def __init__(self, path, at, apart):
        self.shape = (EXPERTS, 10, 10)
        parts = tuple(ByteRange(path, at + BYTES * expert, BYTES) for expert in range(EXPERTS))
        self.ranges = parts if apart else (ByteRange(path, at, EXPERTS * BYTES),)


@pytest.fixture(scope="module")
def content():
    return np.random.default_rng(0).integers(0, 256, 2 * EXPERTS * BYTES + 77, np.uint8)


@pytest.fixture
def path(tmp_path, content):
    content.tofile(tmp_path / "experts")
    return tmp_path / "experts"


def made(path, slots=4, shared=4, apart=False, active=2):
    stacks = {"up": Stack(path, 33, apart), "down": Stack(path, 33 + EXPERTS * BYTES, True)}
    return ExpertCache(stacks, [(("up", "down"), active)], {path: identity(path)}, SlotCount(slots, shared))


def fetch(layer, chosen, few=True, check=lambda: None):
    """Runs with these experts, each given once and with its bytes there; the order in which they came."""
    layer.begin_run()
    layer.chosen += len(chosen)
    layer.counts[chosen] = np.stack([layer.counts[chosen, 0] + 1, np.full(len(chosen), int(layer.clock[0]))], 1)
    came = []
    for some in layer.batches(np.array(chosen, np.int64), few, check):
        for expert in some.tolist():
            assert all(addresses[expert] for addresses in layer.addresses.values())
        came.append(some.tolist())
    assert sorted(expert for some in came for expert in some) == sorted(chosen)
    return came


def check_bytes(layer, content, expert):
    """At the addresses that kernels are told."""
    import ctypes

    for at, addresses in ((33, layer.addresses["up"]), (33 + EXPERTS * BYTES, layer.addresses["down"])):
        found = np.frombuffer(ctypes.string_at(int(addresses[expert]), BYTES), np.uint8)
        np.testing.assert_array_equal(found, content[at + expert * BYTES :][:BYTES])


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("direct", [False, True])
def test_bytes_of_the_file_come_to_the_slots(path, content, apart, direct, monkeypatch):
    if not direct:
        monkeypatch.setattr(descriptors, "DIRECT", 0)
    cache = made(path, apart=apart)
    (layer,) = cache.layers
    for chosen in ([0, 3], [11, 5], [3, 11], [7, 8, 9, 10]):
        layer.begin_run()
        layer.chosen += len(chosen)
        for some in layer.batches(np.array(chosen), True, lambda: None):
            for expert in some.tolist():
                check_bytes(layer, content, expert)
    assert cache.statistics.misses == 8 and cache.statistics.hits == 2
    assert cache.statistics.nbytes == 8 * 2 * BYTES
    cache.close()


def test_hits_come_first_and_the_least_used_goes(path):
    cache = made(path)
    (layer,) = cache.layers
    assert fetch(layer, [0, 1]) in ([[0, 1]], [[0], [1]])
    assert fetch(layer, [0, 2]) == [[0], [2]]
    assert fetch(layer, [0, 3]) == [[0], [3]]
    assert fetch(layer, [0, 4]) == [[0], [4]]  # 1 was used longest ago
    assert [bool(layer.addresses["up"][expert]) for expert in range(5)] == [True, False, True, True, True]
    cache.close()


def test_missing_experts_of_few_tokens_come_as_they_arrive(path, content, monkeypatch):
    """The others are on their way meanwhile; those that pass through shared slots too."""
    gates = {expert: threading.Event() for expert in range(EXPERTS)}
    read = ExpertReader._read
    monkeypatch.setattr(ExpertReader, "_read", lambda self, part, to: (gates[_expert(part)].wait(20), read(self, part, to))[1])
    cache = made(path, slots=3, shared=4)
    (layer,) = cache.layers
    for first in ([4], [9], [2]):
        gates[first[0]].set()
        fetch(layer, first)
    layer.begin_run()
    came = layer.batches(np.array([2, 5, 6, 7, 8]), True, lambda: None)
    assert next(came).tolist() == [2]
    for expert in (5, 6):  # to the slots of others
        gates[expert].set()
        assert next(came).tolist() == [expert]
        check_bytes(layer, content, expert)
    gates[8].set()
    gates[7].set()
    assert sorted(expert for some in came for expert in some.tolist()) == [7, 8]
    check_bytes(layer, content, 2)
    assert [bool(each) for each in layer.addresses["up"]] == [expert in (2, 5, 6) for expert in range(EXPERTS)]
    cache.close()


def _expert(part):
    return (part.offset - 33) // BYTES % EXPERTS


def test_experts_of_many_tokens_fill_free_slots_and_pass_through_shared_ones(path, content):
    cache = made(path)
    (layer,) = cache.layers
    fetch(layer, [0, 1])
    came = fetch(layer, list(range(12)), few=False)
    assert came[0] == [0, 1] and max(map(len, came)) <= 2
    there = [bool(each) for each in layer.addresses["up"]]
    assert sum(there) == 4 and there[0] and there[1]
    for expert in np.flatnonzero(there).tolist():
        check_bytes(layer, content, expert)
    cache.close()


@settings(max_examples=60, deadline=None)
@given(
    slots=st.integers(2, 12), shared=st.integers(2, 6),
    runs=st.lists(st.tuples(st.sets(st.integers(0, EXPERTS - 1), min_size=1), st.booleans()), max_size=20),
)  # fmt: skip
def test_every_chosen_expert_comes_once(tmp_path_factory, content, slots, shared, runs):
    path = tmp_path_factory.getbasetemp() / "experts of hypothesis"
    if not path.exists():
        content.tofile(path)
    cache = made(path, slots, shared)
    (layer,) = cache.layers
    for chosen, few in runs:
        fetch(layer, sorted(chosen), few)
        assert np.count_nonzero(layer.addresses["up"]) <= slots
        np.testing.assert_array_equal(layer.addresses["up"] != 0, layer.addresses["down"] != 0)
    for expert in np.flatnonzero(layer.addresses["up"]).tolist():
        check_bytes(layer, content, expert)
    cache.close()


def test_a_file_that_shrinks(path, content):
    cache = made(path)
    (layer,) = cache.layers
    fetch(layer, [0, 1])
    os.truncate(path, 33 + 2 * BYTES)
    with pytest.raises(ModelFormatError, match="became shorter"):
        fetch(layer, [0, 7])
    check_bytes(layer, content, 0)
    assert not layer.addresses["up"][7]
    cache.close()


def test_a_file_that_was_replaced_before_the_first_read(path, tmp_path, content):
    cache = made(path)
    content.tofile(tmp_path / "other")
    os.replace(tmp_path / "other", path)
    with pytest.raises(ModelFormatError, match="was replaced"):
        fetch(cache.layers[0], [0, 1])
    cache.close()


class SlowReader:
    """Reads that wait for `go`."""

    def __init__(self, reader):
        self.reader, self.go = reader, threading.Event()
        self.read = reader._read
        reader._read = self._read

    def _read(self, part, region):
        self.go.wait(10)
        self.read(part, region)


@timely
def test_a_run_that_is_cancelled_while_it_waits(path, content):
    """Its reads may end later; their slots are not used until then, and nothing is taken for what it is not."""
    cache = made(path)
    (layer,) = cache.layers
    fetch(layer, [0, 1])
    slow = SlowReader(cache.reader)

    def cancel():
        raise Cancelled("by a test")

    began = time.perf_counter()
    with pytest.raises(Cancelled):
        fetch(layer, [2, 3, 4], check=cancel)
    seconds = time.perf_counter() - began
    assert [bool(each) for each in layer.addresses["up"][:5]] == [True, True, False, False, False] or not slow.go.is_set()
    threading.Timer(0.2, slow.go.set).start()
    fetch(layer, [5, 6, 7], few=False)
    fetch(layer, [2, 0])
    check_bytes(layer, content, 2)
    cache.close()
    in_time(seconds, 1)


def test_a_disk_that_hangs(path, monkeypatch):
    cache = made(path)
    slow = SlowReader(cache.reader)
    monkeypatch.setattr(slots_module, "PATIENCE", 0.1)
    with pytest.raises(ModelFormatError, match="has not answered"):
        fetch(cache.layers[0], [0, 1])
    slow.go.set()
    cache.close()


def test_the_first_read_of_an_answer_begins_before_all_are_submitted(path, monkeypatch):
    cache = made(path)
    begun = threading.Event()
    read, submit = cache.reader._read, cache.reader.submit
    monkeypatch.setattr(cache.reader, "_read", lambda *which: (begun.set(), read(*which)))
    monkeypatch.setattr(cache.reader, "let_begin", lambda: begun.wait(10))
    seen = []
    monkeypatch.setattr(cache.reader, "submit", lambda *which: (seen.append(begun.is_set()), submit(*which))[1])
    (layer,) = cache.layers
    own = layer._own_slots
    monkeypatch.setattr(layer, "_own_slots", lambda *which: (seen.append(begun.is_set()), own(*which))[1])
    fetch(layer, [0, 1, 2])
    assert seen == [False] * 3 + [True] * 4  # the first time nobody knows which slot is next
    begun.clear()
    seen.clear()
    fetch(layer, [3, 4])
    assert seen == [False, False] + [True] * 3
    cache.close()


def test_the_slot_that_is_next_is_not_taken_from_an_expert_that_was_used_since(path):
    cache = made(path)
    (layer,) = cache.layers
    fetch(layer, [0, 1, 2, 3])
    fetch(layer, [1, 2, 4])  # in place of 0; 3 is next
    fetch(layer, [3])
    fetch(layer, [5])  # in place of 4
    assert np.flatnonzero(layer.in_ram).tolist() == [1, 2, 3, 5]
    cache.close()


def test_how_many_slots_fit():
    layers = [LayerSlots(("a",), 16, 2, 100, 1500), LayerSlots(("b",), 16, 2, 200, 3000)]
    assert least_slots(layers) == SlotCount(2, 4, 2 * 300 + 4 * 200)
    assert slots_within(layers, 1399) is None
    assert slots_within(layers, 1400) == SlotCount(2, 4, 1400)
    assert slots_within(layers, 2000) == SlotCount(4, 4, 2000)
    assert slots_within(layers, 10**6) == SlotCount(16, 4, 16 * 300 + 800)
    assert padded(1) == 2 * 4096 and padded(4096) == 2 * 4096 and padded(4097) == 3 * 4096


def test_direct_reads_that_are_refused(path, content, monkeypatch):
    """Some file systems open for direct reads and refuse these; all reads of a wave find that out at once."""
    real, refused = os.preadv, []

    def preadv(descriptor, buffers, offset):
        if os.O_DIRECT & fcntl.fcntl(descriptor, fcntl.F_GETFL):
            refused.append(descriptor)
            time.sleep(0.01)
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    cache = made(path)
    (layer,) = cache.layers
    fetch(layer, [0, 3, 5, 7])
    assert len(refused) > 1
    for expert in (0, 3, 5, 7):
        check_bytes(layer, content, expert)
    before = len(os.listdir("/proc/self/fd"))
    cache.close()
    assert len(os.listdir("/proc/self/fd")) <= before - 1  # the direct one was closed at once


def test_a_slow_disk_is_not_a_disk_that_hangs(path, monkeypatch):
    """Patience begins anew with every read that ends."""
    cache = made(path, active=4)
    cache.reader._readers.close(10)
    cache.reader._readers = Readers(1, "a slow disk")  # eight reads, one behind the other
    read = cache.reader._read
    monkeypatch.setattr(cache.reader, "_read", lambda *which: (time.sleep(0.15), read(*which)))
    monkeypatch.setattr(slots_module, "PATIENCE", 1.0)
    fetch(cache.layers[0], [0, 1, 2, 3])
    assert cache.statistics.waited > 1
    cache.close()


@timely
def test_a_run_that_is_cancelled_while_shared_slots_are_busy(path):
    cache = made(path, shared=2)
    (layer,) = cache.layers
    fetch(layer, [0, 1, 2, 3])
    slow = SlowReader(cache.reader)
    looks, seconds = [], []

    def cancel():
        looks.append(1)
        raise Cancelled("by a test")

    for _ in range(2):
        began = time.perf_counter()
        with pytest.raises(Cancelled):
            fetch(layer, list(range(4, 12)), few=False, check=cancel)
        seconds.append(time.perf_counter() - began)
    assert looks
    slow.go.set()
    fetch(layer, list(range(4, 12)), few=False)
    cache.close()
    in_time(max(seconds), 1)


def test_one_slot_is_enough_to_go_on(path):
    """Shared slots that abandoned reads still write to are not waited for if another one is free before them."""
    cache = made(path, shared=2)
    read, go = cache.reader._read, [threading.Event(), threading.Event()]
    memory = [slot.memory for slot in cache.pool._free]

    def hang(part, region):
        which = next((index for index, each in enumerate(memory) if np.shares_memory(each, region)), None)
        if which is not None:
            go[which].wait(20)
        read(part, region)

    cache.reader._read = hang
    for expert, slot in enumerate(cache.pool.take(2)):
        cache.layers[0]._begin(expert, slot)
        cache.pool.give(slot)
    assert not cache.pool.take(1)
    threading.Timer(0.1, go[1].set).start()
    (found,) = cache.pool.take(1, lambda: None)
    assert found.memory is memory[1] and not go[0].is_set()
    go[0].set()
    cache.close()
