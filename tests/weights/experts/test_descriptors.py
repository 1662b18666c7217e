"""Descriptors of many files: a bound, and the files that they were opened for."""

import errno
import os
import resource
import threading

import numpy as np
import pytest

from lacewing.errors import ModelFormatError
from lacewing.formats.checkpoint import ByteRange
from lacewing.formats.read import identity
from lacewing.weights.experts import descriptors
from lacewing.weights.experts.descriptors import OpenFiles, most_open
from lacewing.weights.experts.reading import ExpertReader, ReadWay
from lacewing.weights.memory import allocate

COUNT = 12


@pytest.fixture
def paths(tmp_path):
    found = [tmp_path / f"shard {number}" for number in range(COUNT)]
    for number, path in enumerate(found):
        path.write_bytes(bytes([number]) * 5000)
    return found


def identities(paths):
    return {path: identity(path) for path in paths}


def opened():
    return len(os.listdir("/proc/self/fd"))


def test_the_bound_comes_from_the_limit_of_the_process(monkeypatch):
    for limit, most in ((resource.RLIM_INFINITY, 256), (10**6, 256), (256, 64), (10, 8)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        assert most_open() == most


@pytest.mark.parametrize("direct", [False, True])
def test_few_descriptors_read_many_files(paths, direct, monkeypatch):
    monkeypatch.setattr(descriptors, "most_open", lambda: 3)
    before, reader = opened(), ExpertReader(identities(paths), ReadWay(direct, 2))
    memory = allocate(4096 * 2 * COUNT, "a test").reshape(COUNT, -1)
    for _ in range(2):
        reads = [reader.submit(ByteRange(path, 100, 4500), memory[number]) for number, path in enumerate(paths)]
        for number, read in enumerate(reads):
            read.result(10)
            assert (memory[number, 100:4600] == number).all()
        assert opened() - before <= 3
    reader.close()
    assert opened() <= before


def test_the_one_that_was_used_longest_ago_is_closed(paths):
    files = OpenFiles(identities(paths), False, 2)
    with files.use(paths[0]) as first, files.use(paths[1]):
        with files.use(paths[2]):  # both others are in use
            assert len(files) == 3
        with files.use(paths[0]) as again:
            assert again is first
    with files.use(paths[3]):
        assert len(files) == 2
    files.close()
    with pytest.raises(ModelFormatError, match="model was closed"), files.use(paths[0]):
        pass


def test_a_file_is_the_same_one_when_it_is_opened_again(paths, tmp_path):
    files = OpenFiles(identities(paths), True, 1)
    with files.use(paths[0]):
        pass
    with files.use(paths[1]):
        pass
    (tmp_path / "other").write_bytes(bytes(5000))
    os.replace(tmp_path / "other", paths[0])
    with pytest.raises(ModelFormatError, match="changed or was replaced"), files.use(paths[0]):
        pass
    paths[2].unlink()
    os.mkfifo(paths[2])  # which would block whoever opens it
    with pytest.raises(ModelFormatError, match="changed or was replaced"), files.use(paths[2]):
        pass
    files.close()


def test_one_that_takes_its_place_while_it_is_opened(paths, tmp_path, monkeypatch):
    files, real = OpenFiles(identities(paths), False), os.open
    (tmp_path / "other").write_bytes(bytes(5000))

    def replaced(path, flags):
        monkeypatch.undo()
        os.replace(tmp_path / "other", path)
        return real(path, flags)

    monkeypatch.setattr(os, "open", replaced)
    with pytest.raises(ModelFormatError, match="changed or was replaced"), files.use(paths[0]):
        pass
    files.close()


def test_when_others_of_the_process_have_taken_all_descriptors(paths, monkeypatch):
    files, real, limit = OpenFiles(identities(paths), False), os.open, 3

    def refused(path, flags):
        if len(files) >= limit:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(path, flags)

    monkeypatch.setattr(os, "open", refused)
    for path in paths:
        with files.use(path):
            assert len(files) <= limit
    limit = 0
    files.close()
    files = OpenFiles(identities(paths), False)
    with pytest.raises(ModelFormatError, match="raise `ulimit -n`"), files.use(paths[0]):
        pass


def test_a_descriptor_stays_as_long_as_a_read_uses_it(paths):
    files, closed = OpenFiles(identities(paths), False), threading.Event()
    with files.use(paths[0]) as file:
        threading.Thread(target=lambda: (files.close(), closed.set())).start()
        assert closed.wait(5)
        assert os.pread(file.descriptor, 3, 0) == bytes(3)
    with pytest.raises(OSError, match="Bad file"):
        os.pread(file.descriptor, 3, 0)


@pytest.mark.parametrize("call", ["open", "stat"])
def test_a_disk_that_hangs_while_a_file_is_opened(paths, call, monkeypatch):
    """Other files are read meanwhile, and closing does not wait for it; what is opened after that is closed at once."""
    go, hangs, real = threading.Event(), threading.Semaphore(0), getattr(os, call)
    before, reader = opened(), ExpertReader(identities(paths), ReadWay(False, 3))
    memory = allocate(4096 * 3, "a test").reshape(3, -1)

    def hang(path, *arguments, **options):
        if path == paths[0]:
            hangs.release()
            go.wait(20)
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, call, hang)
    stuck = [reader.submit(ByteRange(paths[0], 0, 100), memory[index]) for index in range(2)]
    for _ in stuck:
        assert hangs.acquire(timeout=10)
    reader.submit(ByteRange(paths[1], 0, 100), memory[2]).result(10)
    closing = threading.Thread(target=reader.close)
    closing.start()
    closing.join(10)
    ended = not closing.is_alive()
    go.set()
    closing.join(10)
    assert ended
    for read in stuck:
        with pytest.raises(ModelFormatError, match="model was closed"):
            read.result(10)
    assert opened() <= before


def test_threads_that_open_the_same_file_at_once_share_it(paths, monkeypatch):
    both, real = threading.Barrier(2), os.open
    before, reader = opened(), ExpertReader(identities(paths), ReadWay(False, 2))
    monkeypatch.setattr(os, "open", lambda *arguments: (both.wait(10), real(*arguments))[1])
    memory = allocate(4096 * 2, "a test").reshape(2, -1)
    for read in [reader.submit(ByteRange(paths[3], 0, 100), region) for region in memory]:
        read.result(10)
    assert (memory[:, :100] == 3).all() and opened() <= before + 1
    reader.close()
    assert opened() <= before


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("most", [700, 4096, 5000])
def test_short_reads_are_put_together(tmp_path, direct, most, monkeypatch):
    """A read may return less than was asked for; of direct ones only whole pages count."""
    path, content = tmp_path / "file", np.random.default_rng(0).integers(0, 256, 40_000, np.uint8)
    content.tofile(path)
    real, reads = os.preadv, []

    def preadv(descriptor, buffers, offset):
        reads.append(offset)
        return real(descriptor, [buffers[0][:most]], offset)

    monkeypatch.setattr(os, "preadv", preadv)
    reader, region = ExpertReader({path: identity(path)}, ReadWay(direct, 1)), allocate(10 * 4096, "a test")
    reader.submit(ByteRange(path, 5000, 30_000), region).result(10)
    np.testing.assert_array_equal(region[904:30_904], content[5000:35_000])
    assert len(reads) > 5
    reader.close()


def test_a_disk_that_fails(paths, monkeypatch):
    def fails(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", fails)
    reader = ExpertReader(identities(paths))
    with pytest.raises(ModelFormatError, match=r"shard 0, byte 0: cannot be read: Input/output error"):
        reader.submit(ByteRange(paths[0], 100, 200), allocate(4096, "a test")).result(10)
    reader.close()
