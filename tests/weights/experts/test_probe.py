"""How a disk is read best is found out by reading from it."""

import errno
import os
import time
from pathlib import Path

import numpy as np
import pytest

from lacewing.errors import Cancelled, ModelFormatError
from lacewing.formats.checkpoint import ByteRange
from lacewing.formats.read import identity
from lacewing.weights.experts import probe
from lacewing.weights.experts.probe import AsPacked, DiskReads, measure, tune
from lacewing.weights.experts.reading import ReadWay
from lacewing.weights.experts.source import FileLayer, pages_of
from lacewing.weights.memory import allocate

EXPERTS, BYTES = 32, 30_000


class Stack:
    shape = (EXPERTS, 10, 10)

    def __init__(self, path, at):
        self.ranges = (ByteRange(path, at, EXPERTS * BYTES),)


@pytest.fixture
def path(tmp_path):
    np.random.default_rng(0).integers(0, 256, 2 * EXPERTS * BYTES + 100, np.uint8).tofile(tmp_path / "experts")
    return tmp_path / "experts"


def sources(path):
    return [FileLayer({"up": Stack(path, 100), "down": Stack(path, 100 + EXPERTS * BYTES)})]


def tuned(path, monkeypatch, rates, **rest):
    """With a disk that has these rates, in MB/s, by way."""
    tried = []

    def rate(parts, files, way, regions, seconds, cancelled):
        assert len(regions) == way.threads
        tried.append(way)
        found = rates.get((way.direct, way.threads), 100)
        return DiskReads(way, 1e6 * (found if isinstance(found, int | float) else next(found)))

    monkeypatch.setattr(probe, "_FEWEST", 0)
    monkeypatch.setattr(probe, "_rate", rate)
    return tune(sources(path), {path: identity(path)}, allocate(8 * 10 * 4096 * 2, "a test")), tried


def test_the_better_way_is_taken(path, monkeypatch):
    assert tuned(path, monkeypatch, {})[0].way == ReadWay(True, 4)
    assert tuned(path, monkeypatch, {(False, 4): 109})[0].way == ReadWay(True, 4)  # no more than chance
    assert tuned(path, monkeypatch, {(False, 4): 150})[0].way == ReadWay(False, 4)
    assert tuned(path, monkeypatch, {(True, 8): 150, (True, 2): 120})[0].way == ReadWay(True, 8)
    found, tried = tuned(path, monkeypatch, {(False, 4): 150, (False, 2): 200})
    assert found.way == ReadWay(False, 2) and found.rate == 200e6 and found.nbytes == BYTES
    first, second = [ReadWay(True, 4), ReadWay(False, 4)], [ReadWay(False, threads) for threads in (4, 2, 8)]
    assert tried == [ReadWay(True, 1), *first, *first, *second, *second]
    by_chance = iter([150, 100, 150, 90])
    assert tuned(path, monkeypatch, {(False, 4): by_chance})[0].way == ReadWay(True, 4)


def test_a_disk_that_is_too_slow_to_tell(path, monkeypatch):
    found, tried = tuned(path, monkeypatch, {(True, 1): 0.1, (False, 4): 500})
    assert found.way == ReadWay(True, 4) and found.rate == 0.1e6 and tried == 3 * [ReadWay(True, 1)]


def test_real_reads(path, monkeypatch):
    files, memory = {path: identity(path)}, allocate(8 * 10 * 4096 * 2, "a test")
    assert tune(sources(path), files, memory).rate == 0  # so few bytes are in the page cache at once
    assert not memory.any()
    monkeypatch.setattr(probe, "_FEWEST", 0)
    monkeypatch.setattr(probe, "TUNE_SECONDS", 0.02)
    began = time.perf_counter()
    found = tune(sources(path), files, memory)
    assert found.rate > 0 and found.nbytes == BYTES and memory.any() and time.perf_counter() - began < 5
    assert measure(sources(path), files, 0.01).rate > 0
    assert measure([AsPacked(each, files) for each in sources(path)], files, 0.01, ReadWay(False, 2)).nbytes == 2 * BYTES
    with pytest.raises(Cancelled):
        tune(sources(path), files, memory, lambda: True)
    path.write_bytes(b"")
    with pytest.raises(ModelFormatError, match="changed or was replaced"):
        measure(sources(path), files, 0.01)


def test_a_file_system_that_refuses_direct_reads(path, monkeypatch):
    """What is told is how it is read, not how it was to be."""
    real = os.open

    def refused(path, flags, *rest):
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", refused)
    monkeypatch.setattr(probe, "_FEWEST", 0)
    monkeypatch.setattr(probe, "TUNE_SECONDS", 0.02)
    found = tune(sources(path), {path: identity(path)}, allocate(8 * 10 * 4096 * 2, "a test"))
    assert not found.way.direct and found.rate > 0
    assert not measure(sources(path), {path: identity(path)}, 0.01).way.direct


def test_ranges_that_follow_each_other_are_read_as_one():
    """Files of Hugging Face hold the matrices of an expert one behind the other, in the order of their names."""
    path, other = Path("a"), Path("b")
    places = {"gate": (path, 14_000), "up": (path, 24_000), "down": (path, 3900)}

    def stack(name, path, at):
        found = Stack(path, 0)
        found.shape, found.ranges = (1, 10, 10), (ByteRange(path, at, 10_000),)
        return found

    layer = FileLayer({name: stack(name, *place) for name, place in places.items()})
    (part,), starts = layer.reads(0)
    assert part == ByteRange(path, 3900, 30_100) and starts == (14_000, 24_000, 3900)
    assert pages_of(part) <= layer.slot_bytes
    apart = FileLayer({name: stack(name, path if name == "up" else other, at) for name, (path, at) in places.items()})
    parts, (gate, up, down) = apart.reads(0)
    assert [each.path.name for each in parts] == ["a", "b"]
    assert up == 24_000 % 4096 and down == 3900 + pages_of(parts[0]) and gate == down + 10_100
