"""Which CPUs are threads of one core, found by timing where a virtual machine hides it.

A CPU works by itself, and then while others do: two that share a core are each about half as fast together. All at once is
tried first, which is enough where each has a core of its own; else halves of the others are tried until one is left.
"""

from __future__ import annotations

import ctypes
import json
import os
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np

from lacewing.backends.cpu.memory import aligned
from lacewing.paths import cache_dir

SECONDS = 0.001  # of a measurement; two that share a core differ by a factor near 2
BUDGET_SECONDS = 0.5  # of the whole probe
SHARED = 0.7  # of the speed alone; below, a core is shared
TRIES = 3  # measurements that must agree: a busy moment is no shared core
CHAINS = 12  # independent multiplications and additions, enough to fill both units of a core
FIRST_CHUNK = 50  # loops between two looks at the clock

_OWN_READY, _OWN_COUNT, _OWN_WORDS = 0, 1, 16
_GO, _STOP = 0, 16


def _code() -> str:
    """`work(own, shared)`: tells that it is ready, waits to be let go, and counts the chunks that it works until it is stopped."""
    chains = range(CHAINS)
    enter = "\n".join(f"  %v{i} = phi <4 x float> [ %start, %begin ], [ %a{i}, %inner ]" for i in chains)
    steps = "\n".join(f"  %m{i} = fmul <4 x float> %v{i}, %factor\n  %a{i} = fadd <4 x float> %m{i}, %more" for i in chains)
    joins = "\n".join(f"  %s{i} = fadd <4 x float> %s{i - 1}, %a{i}" if i else "  %s0 = fadd <4 x float> %a0, %a0" for i in chains)
    return f"""
define void @work(i64* %own, i64* %shared) {{
entry:
  %count = getelementptr i64, i64* %own, i64 {_OWN_COUNT}
  %stop = getelementptr i64, i64* %shared, i64 {_STOP}
  %sink = getelementptr i64, i64* %own, i64 2
  %sum.at = bitcast i64* %sink to <4 x float>*
  %start = load volatile <4 x float>, <4 x float>* %sum.at, align 4
  %factor = fadd <4 x float> %start, <float 0.5, float 0.5, float 0.5, float 0.5>
  %more = fadd <4 x float> %start, <float 0.25, float 0.25, float 0.25, float 0.25>
  store atomic i64 1, i64* %own seq_cst, align 8
  br label %wait
wait:
  %go = load atomic i64, i64* %shared acquire, align 8
  %gone = icmp ne i64 %go, 0
  br i1 %gone, label %begin, label %wait
begin:
  %left = phi i64 [ {FIRST_CHUNK}, %wait ], [ {FIRST_CHUNK}, %again ]
  br label %inner
inner:
  %n = phi i64 [ %left, %begin ], [ %less, %inner ]
{enter}
{steps}
  %less = sub i64 %n, 1
  %more.left = icmp ne i64 %less, 0
  br i1 %more.left, label %inner, label %chunk
chunk:
{joins}
  store volatile <4 x float> %s{CHAINS - 1}, <4 x float>* %sum.at, align 4
  %before = load i64, i64* %count, align 8
  %after = add i64 %before, 1
  store i64 %after, i64* %count, align 8
  %stopped = load atomic i64, i64* %stop acquire, align 8
  %end = icmp ne i64 %stopped, 0
  br i1 %end, label %done, label %again
again:
  br label %begin
done:
  ret void
}}
"""


@cache
def _work() -> tuple[llvm.ExecutionEngine, Callable[[int, int], None]]:
    """The compiled loop, and what keeps it in memory."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(_code())
    engine = llvm.create_mcjit_compiler(module, llvm.Target.from_default_triple().create_target_machine(opt=1))
    engine.finalize_object()
    return engine, ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(engine.get_function_address("work"))


class Meter:
    """A thread on each of some CPUs, asleep but while it is measured. Use it in a `with`. Raises OSError where one is refused."""

    def __init__(self, cpus: Sequence[int]):
        self.cpus, self._work = list(cpus), _work()[1]
        self._own = aligned(8 * _OWN_WORDS * len(cpus), np.int64).reshape(len(cpus), _OWN_WORDS)
        self._shared = aligned(256, np.int64)
        self._place = {cpu: place for place, cpu in enumerate(cpus)}
        self._wake = [threading.Semaphore(0) for _ in cpus]
        self._idle, self._ends = threading.Semaphore(0), False
        self._refused: OSError | None = None
        self._threads = [threading.Thread(target=self._serve, args=(place,), daemon=True) for place in range(len(cpus))]

    def __enter__(self) -> Meter:
        for thread in self._threads:
            thread.start()
        for _ in self._threads:
            self._idle.acquire()
        if self._refused is not None:
            self.__exit__()
            raise self._refused
        return self

    def __exit__(self, *_: object) -> None:
        self._ends = True
        for wake in self._wake:
            wake.release()
        for thread in self._threads:
            thread.join()

    def _serve(self, place: int) -> None:
        try:
            os.sched_setaffinity(0, {self.cpus[place]})
        except OSError as error:
            self._refused = error
        own, shared = int(self._own[place].ctypes.data), int(self._shared.ctypes.data)
        while True:
            self._idle.release()
            self._wake[place].acquire()
            if self._ends:
                return
            self._work(own, shared)

    def rates(self, cpus: Collection[int]) -> dict[int, float]:
        """Chunks a second of each while all of these work at once."""
        places = [self._place[cpu] for cpu in cpus]
        self._own[:], self._shared[:] = 0, 0
        for place in places:
            self._wake[place].release()
        while not self._own[places, _OWN_READY].all():
            time.sleep(0)
        began = time.perf_counter()
        self._shared[_GO] = 1
        time.sleep(SECONDS)
        counts = self._own[places, _OWN_COUNT].copy()
        seconds = time.perf_counter() - began
        self._shared[_STOP] = 1
        for _ in places:
            self._idle.acquire()
        return {cpu: float(count) / seconds for cpu, count in zip(cpus, counts, strict=True)}


def find_shared(meter: Meter, budget: float = BUDGET_SECONDS) -> list[list[int]]:
    """The cores that several of the meter's CPUs share, each a list of their numbers; none where the time does not suffice."""
    until, cpus = time.perf_counter() + budget, meter.cpus
    alone = {cpu: max(meter.rates([cpu])[cpu] for _ in range(TRIES)) for cpu in cpus}

    def slowed(cpu: int, others: Sequence[int]) -> bool:
        """Each time."""
        return all(meter.rates([cpu, *others])[cpu] < SHARED * alone[cpu] for _ in range(TRIES))

    together = [meter.rates(cpus) for _ in range(TRIES)]
    left = [cpu for cpu in cpus if max(each[cpu] for each in together) < SHARED * alone[cpu]]
    found: dict[int, list[int]] = {}
    while left:
        cpu, *left = left
        others = left
        while len(others) > 1 and time.perf_counter() < until:
            half = others[: len(others) // 2]
            others = half if slowed(cpu, half) else others[len(half) :]
        if time.perf_counter() >= until:
            return []
        if others and slowed(cpu, others):
            found.setdefault(cpu, [cpu]).append(others[0])
            left.remove(others[0])
    return [sorted(core) for core in found.values()]


def shared_cores(cpus: Collection[int]) -> list[list[int]]:
    """See `find_shared`; once for each start of the machine, kept in the user's cache."""
    key = f"{_boot()} {','.join(map(str, sorted(cpus)))}"
    try:
        kept = json.loads(_file().read_text(encoding="utf-8"))
        if kept["key"] == key:
            return [[int(cpu) for cpu in core] for core in kept["cores"]]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:
        with Meter(sorted(cpus)) as meter:
            cores = find_shared(meter)
    except OSError:  # a CPU that this process may not use after all
        return []
    _keep(json.dumps({"key": key, "cores": cores}))
    return cores


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"process {os.getpid()}"


def _file() -> Path:
    return cache_dir() / "cores.json"


def _keep(text: str) -> None:
    """Where the cache cannot be written, the next start measures again."""
    partial = _file().with_name(f"cores.{os.getpid()}.part")
    with suppress(OSError):
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, _file())
