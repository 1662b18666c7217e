"""Files and disks that fail while a model is streamed, from its own files and from a pack: the request fails, in words, and the
process lives."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

import lacewing
from lacewing.errors import ModelFormatError, NumericError
from lacewing.formats.read import identity
from lacewing.options import LoadOptions, Sampling
from lacewing.placement.info import ModelInfo
from lacewing.placement.packing import plan_of
from lacewing.weights.experts import pack as pack_module
from lacewing.weights.experts import slots as slots_module
from lacewing.weights.experts.readers import Readers
from tests.checkpoints import tiny
from tests.interrupts import interrupted
from tests.weights.experts.packs import packed

IDS = [1, 2, 3, 4, 5, 6, 7]


@pytest.fixture(params=["files", "pack"])
def paths(request, tmp_path):
    """The model, and the file that its experts are read from."""
    path = tiny("qwen3moe", "gguf", tmp_path, "Q4_0")
    return path, packed(path) if request.param == "pack" else path


@pytest.fixture
def model(paths):
    with lacewing.load(paths[0], backend="cpu", residency="streamed", threads=2, context=64) as model:
        assert (model.weights.experts.pack is None) == (paths[0] == paths[1])
        yield model


@pytest.fixture
def expected(paths):
    with lacewing.load(paths[0], backend="cpu", residency="lazy", threads=2, context=64) as model:
        return model.logits(IDS)


def test_a_file_that_shrinks(paths, model, monkeypatch):
    """It is noticed before the next request, and by a read if it happens in one."""
    os.truncate(paths[1], 5000)
    for _ in range(2):
        with pytest.raises(ModelFormatError, match="changed or was replaced") as failed:
            model.logits(IDS)
        assert failed.value.path == str(paths[1])
    monkeypatch.setattr(model.weights, "_check_files", lambda: None)
    reader = model.weights.experts.reader
    monkeypatch.setattr(reader._files, "_files", {paths[1]: identity(paths[1])})
    with pytest.raises(ModelFormatError, match="became shorter while experts were read from it") as failed:
        model.logits(IDS)
    assert failed.value.path == str(paths[1])


def test_a_file_that_is_replaced(paths, model, tmp_path, monkeypatch):
    """Nothing of the new file is ever read, not even where nobody looks before."""
    shutil.copy2(paths[1], tmp_path / "other")
    os.replace(tmp_path / "other", paths[1])
    with pytest.raises(ModelFormatError, match="changed or was replaced"):
        model.logits(IDS)
    monkeypatch.setattr(model.weights, "_check_files", lambda: None)
    with pytest.raises(ModelFormatError, match="changed or was replaced"):
        model.logits(IDS)
    paths[1].unlink()
    with pytest.raises(ModelFormatError, match="can no longer be read"):
        model.logits(IDS)


@pytest.mark.parametrize("paths", ["pack"], indirect=True)
@pytest.mark.parametrize("residency", ["lazy", "eager"])
def test_weights_that_need_no_pack_when_it_is_gone(residency, paths, model, expected):
    """A change away from streaming looks at the model's files alone; nothing else would be a way on."""
    paths[1].unlink()
    model.set_residency(residency)
    np.testing.assert_array_equal(model.logits(IDS), expected)
    model.set_residency("streamed")
    assert model.weights.experts.pack is None
    np.testing.assert_array_equal(model.logits(IDS), expected)


@pytest.mark.parametrize("paths", ["pack"], indirect=True)
def test_a_damaged_pack_is_named_where_logits_are_no_numbers(paths, monkeypatch):
    """By every way to run a model; opening does not look at what is damaged here."""
    monkeypatch.setattr(pack_module, "CHECKED", 2)
    plan = plan_of(ModelInfo(paths[0], LoadOptions(), warm=False))
    first, last = plan.layers[0].at + plan.layers[0].slot_bytes, plan.nbytes - plan.layers[-1].slot_bytes
    whole = paths[1].read_bytes()
    paths[1].write_bytes(whole[:first] + b"\xff" * (last - first) + whole[last:])
    with lacewing.load(paths[0], backend="cpu", residency="streamed", threads=2, context=64) as model:
        runs = (lambda: model.logits(IDS), lambda: list(model.engine.generate(IDS, Sampling(temperature=0, max_tokens=2))))
        for run in runs:
            with pytest.raises(NumericError, match=r"checkpoint may be damaged .* or its pack") as failed:
                run()
            assert str(paths[1]) in str(failed.value) and "`lacewing pack MODEL --verify`" in str(failed.value)
        model.set_residency("lazy")
        assert np.isfinite(model.logits(IDS)).all()


def test_short_reads(model, expected, monkeypatch):
    real, short = os.preadv, []

    def preadv(descriptor, buffers, offset):
        short.append(offset)
        return real(descriptor, [buffers[0][: 4096 if len(short) % 2 else 700]], offset)

    monkeypatch.setattr(os, "preadv", preadv)
    np.testing.assert_array_equal(model.logits(IDS), expected)
    assert short


class Hang:
    """Reads that wait for `go`."""

    def __init__(self, monkeypatch):
        self.go, self.begun, real = threading.Event(), threading.Event(), os.preadv

        def preadv(*arguments):
            self.begun.set()
            self.go.wait(20)
            return real(*arguments)

        monkeypatch.setattr(os, "preadv", preadv)


def test_a_disk_that_hangs(paths, model, expected, monkeypatch):
    """Until it answers again."""
    hang = Hang(monkeypatch)
    monkeypatch.setattr(slots_module, "PATIENCE", 0.1)
    for _ in range(2):
        with pytest.raises(ModelFormatError, match="the disk has not answered") as failed:
            model.logits(IDS)
        assert failed.value.path == str(paths[1])
    hang.go.set()
    monkeypatch.setattr(slots_module, "PATIENCE", 20)
    np.testing.assert_array_equal(model.logits(IDS), expected)


def test_a_process_that_was_stopped_has_not_waited(model, expected, monkeypatch):
    """Ctrl-Z, and an hour later `fg`."""
    hang, looks = Hang(monkeypatch), []

    def clock():
        looks.append(1)
        if len(looks) > 4:
            hang.go.set()
        return time.perf_counter() + 3600 * (len(looks) > 2)

    monkeypatch.setattr(slots_module, "time", SimpleNamespace(perf_counter=clock))
    np.testing.assert_array_equal(model.logits(IDS), expected)
    assert hang.go.is_set()


def test_an_interrupt_while_the_disk_hangs(model, expected, monkeypatch):
    """Of a program that leaves Ctrl-C to Python, and of one that tells the engine to stop, as the command line does."""
    hang = Hang(monkeypatch)
    with interrupted(hang.begun) as sent:
        model.logits(IDS)
    assert time.perf_counter() - sent[0] < 5  # 0.3 where nothing else runs; the disk takes 20
    stop = threading.Event()
    threading.Timer(0.1, lambda: (sent.append(time.perf_counter()), stop.set())).start()
    stream = model.engine.generate(IDS, Sampling(temperature=0), cancelled=stop.is_set)
    assert list(stream) == [] and stream.finish_reason == "cancelled"
    assert time.perf_counter() - sent[1] < 5
    hang.go.set()
    np.testing.assert_array_equal(model.logits(IDS), expected)


PROGRAM = """
import os, sys, time
import lacewing
model = lacewing.load(sys.argv[1], backend="cpu", residency="streamed", threads=2, context=64)
os.preadv = lambda *_: os.write(1, b"hangs\\n") and time.sleep(600)
model.logits([1, 2, 3])
"""


def test_a_program_ends_although_the_disk_hangs(tmp_path):
    path = tiny("qwen3moe", "gguf", tmp_path, "Q4_0")
    with subprocess.Popen([sys.executable, "-c", PROGRAM, path], stdout=-1, stderr=-1, text=True) as program:
        try:
            assert program.stdout.readline() == "hangs\n"  # from one of the threads; the others follow
            program.send_signal(signal.SIGINT)
            told = program.communicate(timeout=30)[1]
        finally:
            program.kill()
    assert program.returncode == -signal.SIGINT and "KeyboardInterrupt" in told


def running():
    return sum(thread.name.startswith("reader of a test") for thread in threading.enumerate())


def test_threads_that_read():
    """They end when nobody has them any more."""
    go, readers, done = threading.Event(), Readers(2, "reader of a test"), []
    both = threading.Barrier(3)
    jobs = [readers.submit(lambda: (both.wait(10), go.wait(10))) for _ in range(2)]
    both.wait(10)
    jobs += [readers.submit(lambda: done.append(1)) for _ in range(3)]
    assert running() == 2
    began = time.perf_counter()
    readers.close(0.05)
    assert time.perf_counter() - began < 5 and [job.cancelled() for job in jobs] == [False, False, True, True, True]
    with pytest.raises(RuntimeError, match="after their end"):
        readers.submit(go.wait)
    go.set()
    assert [job.result(10) for job in jobs[:2]] == [None, None] and not done
    readers = Readers(2, "reader of a test")
    with pytest.raises(ZeroDivisionError):
        readers.submit(lambda: 1 // 0).result(10)
    del readers
    until = time.monotonic() + 10
    while running() and time.monotonic() < until:
        time.sleep(0.01)
    assert not running()
