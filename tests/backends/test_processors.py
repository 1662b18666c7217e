"""CPUs, cores and nodes from files made for the test: hyper-threads, hybrid machines, several nodes, masks, quotas."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lacewing.backends import processors as module
from lacewing.backends.processors import (
    Processor,
    allowed,
    cpu_list,
    default_count,
    default_elsewhere,
    fast,
    is_virtual,
    nodes_of,
    order_of,
    processors,
)
from tests.backends.trees import machine, tree

HYPER_THREADS = [[0, 4], [1, 5], [2, 6], [3, 7]]


def test_lists_of_the_kernel() -> None:
    assert cpu_list("0-3,8,10-11\n") == {0, 1, 2, 3, 8, 10, 11}
    assert cpu_list("\n") == cpu_list("") == frozenset()
    with pytest.raises(ValueError):
        cpu_list("0-x")


def test_hyper_threads_come_last(tmp_path: Path) -> None:
    found = processors(range(8), tree(tmp_path, machine(HYPER_THREADS)))
    assert [each.core for each in found] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert order_of(found) == [0, 1, 2, 3, 4, 5, 6, 7] and default_count(found, None) == 4
    neighbours = processors(range(4), tree(tmp_path / "b", machine([[0, 1], [2, 3]])))
    assert order_of(neighbours) == [0, 2, 1, 3]


def test_a_mask_counts_only_what_it_leaves(tmp_path: Path) -> None:
    """Of a core of which only the second thread is left, that one is its first."""
    found = processors([1, 4, 5, 6], tree(tmp_path, machine(HYPER_THREADS)))
    assert [(each.number, each.core) for each in found] == [(1, 1), (4, 4), (5, 1), (6, 6)]
    assert order_of(found) == [1, 4, 6, 5] and default_count(found, None) == 3


def test_the_older_name_of_siblings(tmp_path: Path) -> None:
    files = {f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list": "0-1" for cpu in (0, 1)}
    assert [each.core for each in processors([0, 1], tree(tmp_path, files))] == [0, 0]


def test_intel_with_two_kinds_of_cores(tmp_path: Path) -> None:
    """2 fast cores of two threads, 4 that save power."""
    more = {"sys/devices/cpu_core/cpus": "0-3", "sys/devices/cpu_atom/cpus": "4-7"}
    found = processors(range(8), tree(tmp_path, machine([[0, 1], [2, 3], [4], [5], [6], [7]], None, more)))
    assert default_count(found, None) == 2 and order_of(found) == [0, 2, 4, 5, 6, 7, 1, 3]
    only_slow = [each for each in found if each.number > 3]
    assert default_count(only_slow, None) == 4  # a mask may leave nothing else


def test_arm_with_three_kinds_of_cores(tmp_path: Path) -> None:
    sizes = [324, 324, 324, 324, 773, 773, 773, 1024]
    more = {f"sys/devices/system/cpu/cpu{cpu}/cpu_capacity": size for cpu, size in enumerate(sizes)}
    found = processors(range(8), tree(tmp_path, machine([[cpu] for cpu in range(8)], None, more)))
    assert [each.number for each in fast(found)] == [4, 5, 6, 7]
    assert default_count(found, None) == 4 and order_of(found)[:4] == [7, 4, 5, 6]


def test_several_nodes_one_after_the_other(tmp_path: Path) -> None:
    root = tree(tmp_path, machine([[cpu] for cpu in range(8)], ["0,2,4,6", "1,3,5,7"]))
    found = processors(range(8), root)
    assert nodes_of(root) == {0: {0, 2, 4, 6}, 1: {1, 3, 5, 7}}
    assert order_of(found) == [0, 2, 4, 6, 1, 3, 5, 7]


def test_nodes_without_memory_do_not_count(tmp_path: Path) -> None:
    root = tree(tmp_path, machine([[0], [1]], ["0-1", ""], {"sys/devices/system/node/has_memory": "0"}))
    assert nodes_of(root) == {0: {0, 1}}


@pytest.mark.parametrize(("quota", "threads"), [(None, 4), (16.0, 4), (4.0, 4), (3.9, 3), (1.5, 1), (0.2, 1)])
def test_no_more_threads_than_the_quota(tmp_path: Path, quota: float | None, threads: int) -> None:
    assert default_count(processors(range(8), tree(tmp_path, machine(HYPER_THREADS))), quota) == threads


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    assert processors([3, 1], tmp_path) == [Processor(1, 1), Processor(3, 3)]
    assert nodes_of(tmp_path) == {} and not is_virtual(tmp_path) and default_count([], None) == 1


@pytest.mark.parametrize(("flags", "virtual"), [("fpu vme hypervisor lahf_lm", True), ("fpu vme", False)])
def test_virtual_machines(tmp_path: Path, flags: str, virtual: bool) -> None:
    assert is_virtual(tree(tmp_path, {"proc/cpuinfo": f"processor : 0\nflags\t\t: {flags}\n"})) == virtual


def test_this_machine() -> None:
    cpus = allowed()
    assert cpus and [each.number for each in processors(cpus)] == sorted(cpus)
    if sys.platform == "linux":
        assert cpus == os.sched_getaffinity(0)


def test_elsewhere_only_numbers_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS is asked for its fast cores; where it does not answer, and on Windows, all cores count."""
    monkeypatch.setattr(module.psutil, "cpu_count", lambda logical: 16 if logical else 12)
    monkeypatch.setattr(module.sys, "platform", "win32")
    assert default_elsewhere() == 12 and allowed() == frozenset(range(os.cpu_count() or 1))
    monkeypatch.setattr(module.sys, "platform", "darwin")
    answers: list[Any] = ["8\n", "", "unknown oid", OSError("no sysctl")]

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return subprocess.CompletedProcess(command, 0, answer)

    monkeypatch.setattr(module.subprocess, "run", run)
    assert [default_elsewhere() for _ in range(4)] == [8, 12, 12, 12]
