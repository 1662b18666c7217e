"""The CPUs that this process may use: which of them are threads of one core, which are slower, which memory is near.

A CPU here is what the system schedules on; it calls them cpu0, cpu1 ... Elsewhere than on Linux only their number is known.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from lacewing.backends.cgroups import ROOT, number

FAST_SHARE = 0.6  # of the largest capacity; slower cores are those that save power


@dataclass(frozen=True)
class Processor:
    """CPU `number`; `core`: the lowest CPU that shares its core; `node`: its memory node; `capacity`: relative speed."""

    number: int
    core: int
    node: int = 0
    capacity: int = 1024


def allowed() -> frozenset[int]:
    """The CPUs that the calling thread may run on: what taskset and cpusets leave."""
    if sys.platform == "linux":
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def processors(numbers: Collection[int], root: Path = ROOT) -> list[Processor]:
    """These CPUs, in order of their numbers. What the system does not tell is taken as: a core of its own, all alike."""
    folder = root / "sys/devices/system/cpu"
    nodes = {cpu: node for node, cpus in nodes_of(root).items() for cpu in cpus}
    saving = _list(root / "sys/devices/cpu_atom/cpus") if (root / "sys/devices/cpu_core").is_dir() else frozenset()
    found = []
    for cpu in sorted(numbers):
        topology = folder / f"cpu{cpu}/topology"
        siblings = (_list(topology / "core_cpus_list") or _list(topology / "thread_siblings_list")) & frozenset(numbers)
        capacity = number(folder / f"cpu{cpu}/cpu_capacity") or 1024
        found.append(Processor(cpu, min(siblings | {cpu}), nodes.get(cpu, 0), capacity // 4 if cpu in saving else capacity))
    return found


def nodes_of(root: Path = ROOT) -> dict[int, frozenset[int]]:
    """The CPUs of each memory node that has memory; empty where the system knows no nodes."""
    folder = root / "sys/devices/system/node"
    with_memory = _list(folder / "has_memory")
    found = {int(path.name[4:]): _list(path / "cpulist") for path in folder.glob("node[0-9]*")}
    return {node: cpus for node, cpus in sorted(found.items()) if not with_memory or node in with_memory}


def is_virtual(root: Path = ROOT) -> bool:
    """Whether this is a virtual machine, which may hide that CPUs share cores."""
    try:
        with (root / "proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            return any(line.startswith("flags") and " hypervisor" in line for line in lines)
    except OSError:
        return False


def fast(found: Iterable[Processor]) -> list[Processor]:
    """Without cores that are much slower than the fastest."""
    every = list(found)
    most = max((each.capacity for each in every), default=0)
    return [each for each in every if each.capacity >= FAST_SHARE * most]


def order_of(found: Iterable[Processor]) -> list[int]:
    """The CPUs in the order in which threads should take them: one of each core, fast ones first, node by node; then others."""
    seen: dict[int, int] = {}
    ranked = []
    for each in sorted(found, key=lambda each: each.number):
        seen[each.core] = place = seen.get(each.core, -1) + 1
        ranked.append((place, -each.capacity, each.node, each.number))
    return [number for *_, number in sorted(ranked)]


def default_count(found: Iterable[Processor], quota: float | None) -> int:
    """One thread for each fast core, but no more than the CPU time that control groups leave."""
    cores = len({each.core for each in fast(found)})
    return max(1, min(cores, int(quota)) if quota is not None else cores)


def default_elsewhere() -> int:
    """As `default_count`, where only numbers are known: macOS tells its fast cores, Windows only its cores."""
    count = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    if sys.platform == "darwin":
        asked = ["sysctl", "-n", "hw.perflevel0.physicalcpu"]
        try:
            answer = subprocess.run(asked, capture_output=True, text=True, timeout=5, check=False).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            answer = ""
        count = int(answer) if answer.isdecimal() and int(answer) else count
    return count


def _list(path: Path) -> frozenset[int]:
    """`0-3,8` and the like; empty where there is no such file."""
    try:
        return cpu_list(path.read_text())
    except (OSError, ValueError):
        return frozenset()


def cpu_list(text: str) -> frozenset[int]:
    """The numbers of a list as the kernel writes it. Raises ValueError."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)
