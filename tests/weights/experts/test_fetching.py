"""Missing experts that kernels have read during a run: the same answers, the slots that the policy says, and Python's help when
something goes wrong."""

import ctypes
import os
import random
import sys
import threading
import time

import numpy as np
import pytest

from lacewing.backends.cpu import fetching as native
from lacewing.errors import Cancelled, ModelFormatError
from lacewing.weights.experts import descriptors
from lacewing.weights.experts import slots as slots_module
from lacewing.weights.experts.policy import Usage
from lacewing.weights.experts.source import offset_in
from tests.checkpoint_files import write_gguf_tensors
from tests.checkpoints import prompt_of, tiny
from tests.interrupts import interrupted, pressed
from tests.models.running import run
from tests.models.test_old_files import of_ollama, parts_of
from tests.weights.experts.streaming import opened

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels read experts on Linux alone")
PREAD = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)


def checkpoint(name, folder):
    if name == "gate and up in one stack":  # whose kernels have tables of their own
        _, keys, tensors = parts_of("gpt-oss")
        return write_gguf_tensors(folder / "blob", "gptoss", keys, of_ollama(tensors), "F32"), prompt_of("gpt-oss")
    return tiny(name, "gguf", folder, "Q4_0"), prompt_of(name)


@pytest.fixture
def path(tmp_path):
    return tiny("qwen3moe", "gguf", tmp_path, "Q4_0")


@pytest.fixture
def patient(monkeypatch):
    """Runs do not turn to Python because a busy machine is slow."""
    monkeypatch.setattr(native, "FETCH_SECONDS", 60.0)


IDS = prompt_of("qwen3moe") * 4


@pytest.fixture
def expected(path):
    """Logits of every token, one by one."""
    step, store = opened(path)
    found = [run(step, [token], at).copy() for at, token in enumerate(IDS)]
    step.close()
    store.close()
    return found


class Disk:
    """In place of `pread` for the kernels: `before` is called first, and what it gives, if anything, is the result."""

    def __init__(self, monkeypatch):
        self.reads, self.before, real, functions = 0, lambda: None, os.preadv, native.functions()

        def pread(descriptor, to, nbytes, offset):
            self.reads += 1
            if (told := self.before()) is not None:
                return told
            return real(descriptor, [(ctypes.c_uint8 * nbytes).from_address(to)], offset)

        self._function = PREAD(pread)
        address = ctypes.cast(self._function, ctypes.c_void_p).value
        monkeypatch.setattr(native, "functions", lambda: {**functions, "pread": address})


def stops_of(step, monkeypatch):
    """A list that has an item for each time that Python had to help."""
    stops, fetch = [], step._experts.fetch

    def counted(stopped, *rest):
        stops.append(stopped)
        return fetch(stopped, *rest)

    monkeypatch.setattr(step._experts, "fetch", counted)
    return stops


def check_slots(store, path):
    """What kernels are told of has the bytes of the file."""
    content = np.fromfile(path, np.uint8)
    for layer in store.experts.layers:
        there = np.flatnonzero(next(iter(layer.addresses.values())))
        np.testing.assert_array_equal(there, np.flatnonzero(layer.in_ram))
        for expert in there.tolist():
            part = layer._source.reads(expert).parts[0]
            begin = layer._slots[int(layer._slot_of[expert])].address + offset_in(part)
            found = np.frombuffer(ctypes.string_at(begin, part.nbytes), np.uint8)
            np.testing.assert_array_equal(found, content[part.offset :][: part.nbytes])


@pytest.mark.parametrize("name", ["qwen3moe", "gate and up in one stack"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("direct", [True, False])
def test_answers_are_the_same_and_python_is_not_asked(name, threads, direct, tmp_path, monkeypatch, patient):
    if not direct:
        monkeypatch.setattr(descriptors, "DIRECT", 0)
    path, ids = checkpoint(name, tmp_path)
    lazy, store = opened(path, threads=threads)
    step, streamed = opened(path, (4, 2), threads=threads)
    stops, lowering = stops_of(step, monkeypatch), step._lowering
    assert bool(lowering.expert_tables) == (name != "qwen3moe")
    for at, token in enumerate((ids * 4)[:40]):
        np.testing.assert_array_equal(run(step, [token], at), run(lazy, [token], at))
        for each, tables in lowering.expert_tables.items():
            addresses = lowering.weights[each].slots.addresses[each]
            for skipped, table in tables:
                np.testing.assert_array_equal(table, np.where(addresses, addresses + skipped, 0))
    found, layers = streamed.experts.statistics, streamed.experts.layers
    assert not np.any(streamed.experts.pool.files.buffered == direct)
    assert len(stops) <= 2 * len(layers) and found.misses > 4 * len(stops)
    parts = {len(layer._source.reads(expert).parts) for layer in layers for expert in range(layer.experts)}
    assert found.reads == parts.pop() * found.misses and found.waited > 0 and found.nbytes > 0 and not parts
    check_slots(streamed, path)
    for each in (step, lazy, store, streamed):
        each.close()


def test_experts_come_to_the_slots_that_the_policy_says(path, monkeypatch, patient):
    """As computed by the class that counts for Python."""
    step, store = opened(path, (3, 2))
    stops = stops_of(step, monkeypatch)
    step.watch_routes(True)
    layers = store.experts.layers
    for layer in layers:
        layer.kernels.go_on()
    usages = [Usage(layer.experts, layer.usage.active) for layer in layers]
    slots = [np.full(3, -1) for _ in layers]
    for at, token in enumerate(IDS):
        run(step, [token], at)
        for layer, usage, inside, routed in zip(layers, usages, slots, step.routes(), strict=True):
            chosen = routed.ids[0]
            usage.counts[chosen] = np.stack([usage.counts[chosen, 0] + 1, np.full(len(chosen), at + 1)], 1)
            if missing := sorted(set(chosen.tolist()) - set(inside.tolist())):
                scores = usage.scores(at + 1)
                order = np.argsort([-1 if each < 0 else 9e9 if each in chosen else scores[each] for each in inside], kind="stable")
                inside[order[: len(missing)]] = missing
            np.testing.assert_array_equal(layer._expert_in, inside)
            np.testing.assert_allclose(layer.usage.frequency, usage.frequency, rtol=1e-12)
            np.testing.assert_allclose(layer.usage.history, usage.history, rtol=1e-12)
    assert not stops and store.experts.statistics.misses > 100
    step.close()
    store.close()


@pytest.mark.parametrize("result", [-1, 0, 4096])
def test_a_read_that_fails_once_is_done_again(result, path, expected, monkeypatch):
    """By Python, which reads all from then on; what failed is counted once."""
    disk = Disk(monkeypatch)
    step, store = opened(path, (4, 2))
    for at, token in enumerate(IDS[:20]):
        np.testing.assert_array_equal(run(step, [token], at), expected[at])
    before = disk.reads
    disk.before = lambda: result if disk.reads == before + 2 else None
    for at, token in enumerate(IDS[20:], 20):
        np.testing.assert_array_equal(run(step, [token], at), expected[at])
    assert 20 < before < disk.reads <= before + 3 * 4  # of the layer that was on its way
    found = store.experts.statistics
    assert found.reads == 3 * found.misses
    check_slots(store, path)
    step.close()
    store.close()


def test_a_file_that_shrinks_under_a_kernel(path, expected):
    step, store = opened(path, (4, 2))
    for at, token in enumerate(IDS[:20]):
        np.testing.assert_array_equal(run(step, [token], at), expected[at])
    assert all(layer.fetching.ready[0] for layer in store.experts.layers)
    os.truncate(path, 5000)
    for _ in range(2):
        with pytest.raises(ModelFormatError, match="became shorter while experts were read from it"):
            for at, token in enumerate(IDS[20:], 20):
                run(step, [token], at)
    step.close()
    store.close()


def test_a_disk_that_hangs(path, expected, monkeypatch):
    """The request fails after a while; Ctrl-C comes at once; nothing is lost when the disk answers again."""
    disk, go, begun = Disk(monkeypatch), threading.Event(), threading.Event()
    step, store = opened(path, (4, 2))
    for at, token in enumerate(IDS[:20]):
        run(step, [token], at)
    disk.before = lambda: begun.set() or (go.wait(20) and None)

    def rest():
        for at, token in enumerate(IDS[20:], 20):
            np.testing.assert_array_equal(run(step, [token], at), expected[at])

    with monkeypatch.context() as patch:
        patch.setattr(slots_module, "PATIENCE", 0.1)
        for _ in range(2):
            with pytest.raises(ModelFormatError, match="the disk has not answered"):
                rest()
    with interrupted(begun, after=0.2) as sent:
        rest()
    assert time.perf_counter() - sent[0] < 5  # 0.3 where nothing else runs
    go.set()
    rest()
    check_slots(store, path)
    step.close()
    store.close()


def test_runs_that_are_cancelled_at_any_moment(path, expected, monkeypatch):
    """Reads go on without them; no later run takes another expert's bytes for those that it needs."""
    disk, draw, cancelled = Disk(monkeypatch), random.Random(0), 0
    step, store = opened(path, (4, 2))
    for at, token in enumerate(IDS[:20]):
        run(step, [token], at)
    disk.before = lambda: time.sleep(draw.choice([0, 0, 0.001, 0.003, 0.02]))
    for _ in range(120):
        at = draw.randrange(20, len(IDS))
        for earlier in range(20, at):
            if earlier % 7 == at % 7:
                run(step, [IDS[earlier]], earlier)
        timer = threading.Timer(draw.random() * 0.006, step.abort)
        timer.start()
        try:
            run(step, [IDS[at]], at)
        except Cancelled:
            cancelled += 1
        timer.join()
    assert cancelled > 20
    for at, token in enumerate(IDS):
        np.testing.assert_array_equal(run_again(step, token, at), expected[at])
    check_slots(store, path)
    assert (store.experts.layers[0]._expert_in >= 0).all()
    step.close()
    store.close()


def run_again(step, token, at):
    """A word that cancels may be left of the run before."""
    try:
        return run(step, [token], at)
    except Cancelled:
        return run(step, [token], at)


def test_ctrl_c_while_a_kernel_reads(path, expected, monkeypatch, patient):
    """Python raises it when the run is over. A second walk of it would come to other experts, and to barriers that nobody else is
    at."""
    disk = Disk(monkeypatch)
    step, store = opened(path, (6, 2))
    for at, token in enumerate(IDS[:20]):
        run(step, [token], at)
    leads, lead, stops, interrupts = [], step._pool._lead, stops_of(step, monkeypatch), 0
    monkeypatch.setattr(step._pool, "_lead", lambda *arguments: (leads.append(1), lead(*arguments)))
    for at, token in enumerate(IDS[20:], 20):
        begun, before = threading.Event(), len(leads)
        disk.before = lambda begun=begun: None if begun.is_set() else begun.set() or time.sleep(0.02)
        try:
            with pressed(begun):
                run(step, [token], at)
        except KeyboardInterrupt:
            interrupts += 1
            assert len(leads) == before + 1
        disk.before = lambda: None
        np.testing.assert_array_equal(run_again(step, token, at), expected[at])
    assert interrupts > 5 and not stops
    check_slots(store, path)
    step.close()
    store.close()


def test_python_is_asked_now_and_then_while_runs_wait(path, expected, monkeypatch):
    """Ctrl-C of a program that leaves it to Python comes there."""
    disk = Disk(monkeypatch)
    monkeypatch.setattr(native, "FETCH_SECONDS", 0.05)
    step, store = opened(path, (4, 2))
    for at, token in enumerate(IDS[:20]):
        run(step, [token], at)
    stops, found = stops_of(step, monkeypatch), store.experts.statistics
    before, disk.before = found.waited, lambda: time.sleep(0.01)
    for at, token in enumerate(IDS[20:], 20):
        np.testing.assert_array_equal(run(step, [token], at), expected[at])
    assert found.waited - before > 0.5 and len(stops) > (found.waited - before) / 0.5
    step.close()
    store.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked off")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_that_was_forked_off_ends_no_threads(path, expected, monkeypatch, patient):
    step, store = opened(path, (4, 2))
    for at, token in enumerate(IDS[:20]):
        run(step, [token], at)
    child = os.fork()
    if not child:
        try:
            step._experts.fetches.close()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    stops = stops_of(step, monkeypatch)
    for at, token in enumerate(IDS[20:], 20):
        np.testing.assert_array_equal(run(step, [token], at), expected[at])
    assert len(stops) <= 2
    step.close()
    store.close()


def reading():
    return [thread for thread in threading.enumerate() if thread.name.startswith("lacewing-experts-native")]


def test_threads_and_files_end_with_the_residency(path, expected):
    before, files = len(reading()), len(os.listdir("/proc/self/fd"))
    step, store = opened(path, (4, 2))
    for at, token in enumerate(IDS[:20]):
        run(step, [token], at)
    assert len(reading()) == before + store.experts.disk.way.threads and len(os.listdir("/proc/self/fd")) > files
    store.set_residency("lazy")
    step.rebind()
    assert len(reading()) == before
    np.testing.assert_array_equal(run(step, [IDS[20]], 20), expected[20])
    store.set_residency("streamed")
    step.rebind()
    np.testing.assert_array_equal(run(step, [IDS[21]], 21), expected[21])
    step.close()
    store.close()
    assert len(reading()) == before and len(os.listdir("/proc/self/fd")) == files
