"""Memory that is dealt out to several nodes: by the kernel of this machine on its one node, and as it would be asked for on two."""

from __future__ import annotations

import ctypes
import mmap
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lacewing
from lacewing.backends import paging as module
from lacewing.backends import processors
from lacewing.backends.cpu import CpuBackend, affinity
from lacewing.backends.cpu.step import CpuStep
from lacewing.backends.paging import interleave
from lacewing.weights import memory as weight_memory
from tests.backends.trees import machine, tree
from tests.checkpoints import tiny

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells its memory nodes")
PAGE = mmap.PAGESIZE


def mapping(pages: int) -> np.ndarray:
    return np.frombuffer(mmap.mmap(-1, pages * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)


class Kernel:
    """Notes what it is asked for. `policy`: of the process; `answer`: of mbind."""

    def __init__(self) -> None:
        self.policy = self.answer = 0
        self.asked: list[tuple[int, int, int, list[int], int]] = []

    def __call__(self, number: int, *arguments: Any) -> int:
        values = [each.value for each in arguments]
        if number == module._CALLS[platform.machine()][1]:
            ctypes.c_int.from_address(values[0]).value = self.policy
            return 0
        address, nbytes, mode, mask, bits, flags = values
        words = np.ctypeslib.as_array((ctypes.c_uint64 * ((bits - 1) // 64)).from_address(mask))
        nodes = [64 * at + bit for at, word in enumerate(words.tolist()) for bit in range(64) if word >> bit & 1]
        self.asked.append((address, nbytes, mode, nodes, flags))
        return self.answer


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(module, "_syscall", lambda: made)
    return made


def test_whole_pages_are_dealt_out(kernel: Kernel) -> None:
    memory = mapping(4)
    assert interleave(memory, (0, 1)) and interleave(memory[100 : 3 * PAGE + 5], (1, 66))
    start = memory.ctypes.data
    assert kernel.asked == [(start, 4 * PAGE, 3, [0, 1], 0), (start + PAGE, 2 * PAGE, 3, [1, 66], 0)]


def test_nothing_is_asked_for_without_need(kernel: Kernel) -> None:
    assert not interleave(mapping(4), ()) and not interleave(np.empty(0, np.uint8), (0, 1))
    assert not interleave(mapping(4)[100:200], (0, 1))  # no whole page
    kernel.policy = 3
    assert not interleave(mapping(4), (0, 1)), "the process runs under numactl"
    assert not kernel.asked
    kernel.policy, kernel.answer = 0, -1
    assert not interleave(mapping(4), (0, 1)) and kernel.asked


def test_this_machine_takes_it() -> None:
    """A container may forbid it; then the memory is as good as before."""
    memory = mapping(8)
    done = interleave(memory, (min(processors.nodes_of(), default=0),))
    lines = Path("/proc/self/numa_maps").read_text().splitlines()
    assert done == any(line.startswith(f"{memory.ctypes.data:x} interleave") for line in lines)


@pytest.fixture
def two_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """8 CPUs on two nodes of four."""
    root = tree(tmp_path, machine([[cpu] for cpu in range(8)], ["0-3", "4-7"]))
    found = processors.processors(range(8), root)
    affinity._order.cache_clear()
    monkeypatch.setattr(affinity, "cores", lambda cpus: [each for each in found if each.number in cpus])
    monkeypatch.setattr(processors, "allowed", lambda: frozenset(range(8)))
    yield root
    affinity._order.cache_clear()


def test_nodes_are_those_that_threads_run_on(two_sockets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert affinity.memory_nodes(4, two_sockets) == (0,) and affinity.memory_nodes(5, two_sockets) == (0, 1)
    assert affinity.memory_nodes(9, two_sockets) == (0, 1), "more threads than CPUs: the system decides where they run"
    monkeypatch.setenv(affinity.SWITCH, "0")
    assert affinity.memory_nodes(2, two_sockets) == (0, 1)
    monkeypatch.setattr(processors, "allowed", lambda: frozenset({5, 6}))
    assert affinity.memory_nodes(2, two_sockets) == (1,)
    assert affinity.memory_nodes(2, tree(tmp_path / "one", machine([[0], [1]], ["0-1"]))) == ()


def test_weights_and_states_of_a_model(tmp_path: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine of two nodes: the weights in RAM, before any is read, and each group of states."""
    monkeypatch.setattr(CpuBackend, "memory_nodes", lambda self: (0, 1))
    touched: list[bool] = []

    def noted(memory: np.ndarray, nodes: tuple[int, ...]) -> bool:
        touched.append(bool(memory.any()))
        return interleave(memory, nodes)

    monkeypatch.setattr(weight_memory, "interleave", noted)
    path = tiny("gemma2", "gguf", tmp_path, "Q8_0")
    with lacewing.load(path, backend="cpu", residency="eager", threads=1) as model:
        step = model.engine.step
        assert isinstance(step, CpuStep)
        states = [group.reserved.memory for group in step._store.groups]
        assert touched == [False] and len(kernel.asked) == 1 + len(states) and len(states) == 2
        assert [nodes for *_, nodes, _ in kernel.asked] == [[0, 1]] * 3
        assert {address for address, *_ in kernel.asked} >= {int(memory.ctypes.data) for memory in states}
        assert kernel.asked[0][1] >= model.weights.anonymous_bytes // PAGE * PAGE
