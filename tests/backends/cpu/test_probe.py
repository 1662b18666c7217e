"""Cores that CPUs share: found from simulated rates, steady and noisy, kept until the next start, and measured on this machine."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from lacewing.backends.cpu import probe
from lacewing.backends.cpu.affinity import cores
from tests.backends.trees import machine, tree


class Simulated:
    """A meter of CPUs in these cores. `noise`: the chance that a CPU is slow for a moment; `floating`: the host moves them."""

    def __init__(self, cores: Sequence[Sequence[int]], noise: float = 0.0, floating: bool = False, seconds: float = 0.0):
        self.cpus = sorted(cpu for core in cores for cpu in core)
        self.calls, self._cores, self._noise, self._floating, self._seconds = 0, cores, noise, floating, seconds
        self._random = random.Random(1)

    def rates(self, cpus: Collection[int]) -> dict[int, float]:
        self.calls += 1
        time.sleep(self._seconds)
        places = self._random.sample(self.cpus, len(cpus)) if self._floating else list(cpus)
        core_of = {cpu: number for number, core in enumerate(self._cores) for cpu in core}
        numbers = [core_of[place] for place in places]
        found = {}
        for cpu, number in zip(cpus, numbers, strict=True):
            slow = 0.4 if self._random.random() < self._noise else 1.0
            found[cpu] = 1e7 * slow * self._random.uniform(0.95, 1.05) / numbers.count(number) * (0.85 if len(cpus) > 8 else 1)
        return found


def shared(meter: Simulated, budget: float = 10.0) -> list[list[int]]:
    return sorted(probe.find_shared(meter, budget))  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [2, 3, 8, 16, 64])
def test_cores_of_their_own_are_seen_at_once(count: int) -> None:
    meter = Simulated([[cpu] for cpu in range(count)])
    assert shared(meter) == [] and meter.calls <= 3 * count + 3


@pytest.mark.parametrize("distance", [1, 8])
def test_all_shared(distance: int) -> None:
    """Neighbours, and CPUs that are half of the machine apart."""
    cores = [[2 * core, 2 * core + 1] if distance == 1 else [core, core + 8] for core in range(8)]
    meter = Simulated(cores)
    assert shared(meter) == sorted(cores) and meter.calls < 200


def test_some_shared_and_numbers_with_gaps() -> None:
    """A mask that leaves whole cores and halves of others."""
    assert shared(Simulated([[1, 9], [2], [3, 11], [12]])) == [[1, 9], [3, 11]]


def test_four_threads_a_core_give_pairs() -> None:
    """At least no two of a pair are taken for two cores."""
    found = shared(Simulated([[0, 1, 2, 3], [4, 5, 6, 7]]))
    assert len(found) == 4 and all(max(core) // 4 == min(core) // 4 for core in found)


def test_busy_moments_are_no_shared_cores() -> None:
    for _ in range(5):
        assert shared(Simulated([[cpu] for cpu in range(16)], noise=0.1)) == []


def test_a_host_that_moves_its_cpus_has_no_pairs() -> None:
    """All together are slow, but no two are again and again; what would be found must not be believed."""
    meter = Simulated([[core, core + 8] for core in range(8)], floating=True)
    assert len(shared(meter)) <= 1


def test_the_time_is_bounded() -> None:
    meter = Simulated([[core, core + 32] for core in range(32)], seconds=0.002)
    began = time.perf_counter()
    assert shared(meter, 0.1) == [] and time.perf_counter() - began < 2


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="ties threads to CPUs")


@needs_linux
def test_this_machine_agrees_with_what_its_system_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And every thread of the meter works only where it is told to."""
    cpus = sorted(os.sched_getaffinity(0))[:4]
    with probe.Meter(cpus) as meter:
        found, until = [meter.rates(cpus)], time.monotonic() + 60  # in some rounds others may have a CPU all the time
        while not all(max(rates[cpu] for rates in found) > 1e5 for cpu in cpus) and time.monotonic() < until:
            found.append(meter.rates(cpus))
        assert all(max(rates[cpu] for rates in found) > 1e5 for cpu in cpus) and all(list(rates) == cpus for rates in found)
        assert set(meter.rates(cpus[:1])) == {cpus[0]}


@needs_linux
def test_a_cpu_that_is_refused() -> None:
    with pytest.raises(OSError), probe.Meter([0, 4095]):
        pass
    assert probe.shared_cores([0, 4095]) == []


@needs_linux
def test_measured_once_for_each_start_and_mask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LACEWING_CACHE", str(tmp_path / "cache"))
    calls: list[list[int]] = []

    def found(meter: probe.Meter) -> list[list[int]]:
        calls.append(meter.cpus)
        return [meter.cpus]

    monkeypatch.setattr(probe, "find_shared", found)
    cpus = sorted(os.sched_getaffinity(0))
    assert probe.shared_cores(cpus) == probe.shared_cores(frozenset(cpus)) == [cpus] and len(calls) == 1
    probe.shared_cores(cpus[:1])
    assert len(calls) == 2
    monkeypatch.setattr(probe, "_boot", lambda: "another start")
    probe.shared_cores(cpus[:1])
    assert len(calls) == 3
    for broken in ("", "[]", '{"key": 1}', "\x00"):
        (tmp_path / "cache/cores.json").write_text(broken)
        assert probe.shared_cores(cpus[:1]) == [cpus[:1]]
    (tmp_path / "cache/cores.json").unlink()
    monkeypatch.setenv("LACEWING_CACHE", str(tmp_path / "cache/cores.json/no folder"))
    (tmp_path / "cache/cores.json").write_text("")
    assert probe.shared_cores(cpus[:1]) == [cpus[:1]]  # nothing can be kept


def test_only_virtual_machines_that_show_no_shared_cores_are_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[frozenset[int]] = []
    timed = SimpleNamespace(answer=[[0, 2], [1, 3]])
    monkeypatch.setattr("lacewing.backends.cpu.affinity.shared_cores", lambda cpus: asked.append(cpus) or timed.answer)
    flags = {"proc/cpuinfo": "flags : fpu hypervisor lm"}
    single, double = [[0], [1], [2], [3]], [[0, 1], [2, 3]]
    hidden = cores(frozenset(range(4)), tree(tmp_path / "a", machine(single, None, flags)))
    assert [each.core for each in hidden] == [0, 1, 0, 1] and asked == [frozenset(range(4))]
    assert [each.core for each in cores(frozenset(range(4)), tree(tmp_path / "b", machine(double, None, flags)))] == [0, 0, 2, 2]
    assert [each.core for each in cores(frozenset(range(4)), tree(tmp_path / "c", machine(single)))] == [0, 1, 2, 3]
    assert [each.core for each in cores(frozenset({3}), tree(tmp_path / "a", {}))] == [3]
    assert len(asked) == 1
