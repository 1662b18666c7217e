"""Reading bytes of ranges: mapped views that share one mapping, positioned reads, and files that change meanwhile."""

from __future__ import annotations

import gc
import mmap
import os
import time
from pathlib import Path

import numpy as np
import pytest

from lacewing.errors import Cancelled, ModelFormatError
from lacewing.formats import read
from lacewing.formats.checkpoint import ByteRange
from lacewing.formats.read import Reader, identity, mapped, release

SIZE = 300_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "data"
    file.write_bytes(np.random.default_rng(0).integers(0, 256, SIZE, np.uint8).tobytes())
    return file


def test_views_share_one_mapping_and_keep_it_alive(path: Path) -> None:
    content = np.frombuffer(path.read_bytes(), np.uint8)
    first, second = mapped(ByteRange(path, 10, 1000)), mapped(ByteRange(path, 5000, SIZE - 5000))
    assert first.base is second.base and not first.flags.writeable and not first.flags.owndata
    assert (first == content[10:1010]).all() and (second == content[5000:]).all()
    key = (str(path), read.identity(path))
    del second
    gc.collect()
    path.unlink()  # the bytes stay readable
    assert key in read._mappings and (first == content[10:1010]).all()
    del first
    gc.collect()
    assert key not in read._mappings


def test_released_pages_come_back(path: Path) -> None:
    content = path.read_bytes()
    for offset, nbytes in ((0, SIZE), (4095, 8194), (1, 10), (4096, 4096)):
        view = mapped(ByteRange(path, offset, nbytes))
        release(view)
        assert view.tobytes() == content[offset : offset + nbytes]


def test_memory_without_a_file_is_never_released() -> None:
    block = np.frombuffer(bytearray(b"x" * 65536), np.uint8)
    anonymous = np.frombuffer(mmap.mmap(-1, 65536), np.uint8)
    anonymous[:] = 7
    for view in (block, block[4096:], anonymous, anonymous[8192:]):
        release(view)
    assert (block == ord("x")).all() and (anonymous == 7).all()


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux")
def test_release_gives_pages_back_while_the_view_lives(path: Path) -> None:
    view = mapped(ByteRange(path, 0, SIZE))
    int(view.sum())
    resident = []
    for _ in range(2):
        lines = Path("/proc/self/smaps").read_text().split(str(path))[1].splitlines()
        resident.append(next(int(line.split()[1]) for line in lines if line.startswith("Rss:")))
        release(view)
    assert resident[0] > 250 and resident[1] < 32


def test_positioned_reads(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "CHUNK", 7_000)
    out = np.zeros(20_000, np.uint8)
    steps: list[int] = []
    with Reader(advance=steps.append) as reader:
        reader.into(ByteRange(path, 123, 20_000), out)
        assert out.tobytes() == path.read_bytes()[123:20_123] and sum(steps) == 20_000 and max(steps) <= 7_000
        reader.into(ByteRange(path, SIZE, 0), out[:0])
    assert mapped(ByteRange(path, SIZE, 0)).size == 0


@pytest.mark.parametrize("chunk", [999, 1_000, 2**20])
@pytest.mark.parametrize("nbytes", [3, 1_000, 19_999, 20_000, 30_000])
def test_pieces(path: Path, monkeypatch: pytest.MonkeyPatch, nbytes: int, chunk: int) -> None:
    """Full ones but for the last, in memory that is used again."""
    monkeypatch.setattr(read, "CHUNK", chunk)
    data, found, steps = path.read_bytes(), [], []
    with Reader(advance=steps.append) as reader:
        for part in (ByteRange(path, 123, 20_000), ByteRange(path, 7, 0), ByteRange(path, 0, 5)):
            pieces = [piece.tobytes() for piece in reader.pieces(part, nbytes)]
            assert b"".join(pieces) == data[part.offset : part.offset + part.nbytes]
            assert all(len(piece) == nbytes for piece in pieces[:-1]) and all(map(len, pieces))
            found += pieces
    assert sum(steps) == 20_005


def test_a_reader_opens_a_file_once_and_notices_that_it_changed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, out = [], np.empty(10, np.uint8)
    real = read.open_regular
    monkeypatch.setattr(read, "open_regular", lambda path: (opened.append(path), real(path))[1])
    with Reader({path: identity(path)}) as reader:
        for offset in range(0, 100, 10):
            reader.into(ByteRange(path, offset, 10), out)
        assert opened == [path]
        os.utime(path, ns=(1, 1))
        with pytest.raises(ModelFormatError, match="changed or was replaced"):
            reader.into(ByteRange(path, 0, 10), out)


@pytest.mark.skipif(os.name == "nt", reason="st_ctime is the time of creation")
def test_a_change_whose_time_was_set_back_is_noticed(path: Path) -> None:
    before, facts = identity(path), path.stat()
    data = path.read_bytes()
    for _ in range(40):
        path.write_bytes(data[::-1])
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        time.sleep(0.01)  # longer than a tick of the file system's clock
        assert path.stat().st_mtime_ns == facts.st_mtime_ns and identity(path) != before
        before = identity(path)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")
def test_a_reader_of_many_files_has_one_open(tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(20)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number] * 10))
    before, out = len(os.listdir("/proc/self/fd")), np.empty(10, np.uint8)
    with Reader() as reader:
        for number, path in enumerate(paths):
            reader.into(ByteRange(path, 0, 10), out)
            assert (out == number).all() and len(os.listdir("/proc/self/fd")) == before + 1
    assert len(os.listdir("/proc/self/fd")) == before


def test_cancelled_reads(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "CHUNK", 1_000)
    steps: list[int] = []
    with Reader(None, steps.append, lambda: len(steps) >= 3) as reader, pytest.raises(Cancelled):
        reader.into(ByteRange(path, 0, SIZE), np.empty(SIZE, np.uint8))
    assert len(steps) == 3


def test_files_that_changed(path: Path, tmp_path: Path) -> None:
    part = ByteRange(path, SIZE - 10, 10)
    old = mapped(part).copy()
    os.truncate(path, SIZE - 5)
    for attempt in (lambda: mapped(part), lambda: Reader().into(part, np.empty(10, np.uint8))):
        with pytest.raises(ModelFormatError, match="became shorter"):
            attempt()
    path.unlink()
    with pytest.raises(ModelFormatError, match="can no longer be read"):
        mapped(part)
    path.write_bytes(bytes(SIZE))  # another file of that name is mapped anew
    assert not mapped(part).any() and old.any()


class Failing:
    """A file whose n-th read fails, or gives only a few bytes."""

    def __init__(self, data: bytes, fail_at: int, failure: str):
        self._data, self._at, self._reads, self._fail_at, self._failure = data, 0, 0, fail_at, failure

    def readinto(self, target: memoryview) -> int:
        self._reads += 1
        if self._reads == self._fail_at and self._failure == "error":
            raise OSError(5, "Input/output error")
        if self._reads == self._fail_at and self._failure == "end":
            return 0
        count = min(len(target), 3, len(self._data) - self._at)
        target[:count] = self._data[self._at : self._at + count]
        self._at += count
        return count

    def seek(self, offset: int) -> None:
        self._at = offset

    def close(self) -> None: ...


def test_every_failing_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short reads are taken up; an error or an early end at any read is reported, with its place."""
    data = path.read_bytes()
    for fail_at in range(1, 9):
        for failure in ("short", "error", "end"):
            monkeypatch.setattr(read, "open_regular", lambda _, n=fail_at, f=failure: (Failing(data, n, f), SIZE))
            out = np.zeros(20, np.uint8)
            if failure == "short" or fail_at > 7:
                Reader().into(ByteRange(path, 50, 20), out)
                assert out.tobytes() == data[50:70]
                continue
            with pytest.raises(ModelFormatError, match=r"cannot be read|became shorter") as caught:
                Reader().into(ByteRange(path, 50, 20), out)
            assert caught.value.offset == 50 + 3 * (fail_at - 1)
