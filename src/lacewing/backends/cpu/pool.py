"""The threads of the CPU backend: workers that all steps of a process share, and the team that runs a step.

A worker is native code that spins between the steps of a generation, then sleeps. A team of N is the caller, as thread 0, and
N - 1 workers. Steps of several models run side by side while there are enough workers, and else one after another.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections import deque
from collections.abc import Callable

import numpy as np

from lacewing.backends import processors
from lacewing.backends.cpu import affinity
from lacewing.backends.cpu.arguments import MAIL, MAIL_ASLEEP, MAIL_BYTES, STEP, STEP_BYTES
from lacewing.backends.cpu.memory import aligned
from lacewing.errors import BackendError

_KERNEL = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)
Native = Callable[[int, int, int, int], None]
WORKER_SPINS = 60_000  # pauses before a worker sleeps, some 1 to 3 ms


def yield_address() -> int:
    """A C function without arguments that gives the time slice away; 0 where there is none."""
    try:
        if sys.platform == "win32":
            return ctypes.cast(ctypes.WinDLL("kernel32").SwitchToThread, ctypes.c_void_p).value or 0
        return ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p).value or 0
    except (OSError, AttributeError):
        return 0


def head_of(count: int, table: np.ndarray, state: np.ndarray, counters: np.ndarray, threads: int) -> np.ndarray:
    """The words that the executor finds everything by (kernels/executor.py)."""
    head = aligned(STEP_BYTES, np.int64)
    head[:] = 0
    words = STEP._replace(
        ops=count, table=table.ctypes.data, state=state.ctypes.data, threads=threads, counters=counters.ctypes.data,
        yield_function=yield_address(), begun=0, ended=0,
    )  # fmt: skip
    head[: len(words)] = words
    return head


class Worker:
    """A thread that runs its part of each step that its mail names."""

    def __init__(self, work: Native, number: int):
        self.owner: ThreadPool | None = None
        self.cpu: int | None = None  # that it is tied to
        self.mail = aligned(MAIL_BYTES, np.int64)
        self.mail[:] = 0
        self.mail[MAIL.yield_function // 8], self.mail[MAIL.spins // 8] = yield_address(), WORKER_SPINS
        self.mail[MAIL_ASLEEP // 8] = 1
        self.address = int(self.mail.ctypes.data)
        self.wake = threading.Semaphore(0)
        self._work, self._home = work, processors.allowed()
        self.thread = threading.Thread(target=self._serve, name=f"lacewing-{number}", daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while not self.mail[MAIL.stop // 8]:
            self.wake.acquire()
            self._work(self.address, 0, 0, 0)

    def tie(self, cpu: int | None) -> None:
        """To a CPU; None: to those that it began with."""
        if cpu != self.cpu:
            affinity.tie(self.thread.native_id or 0, self._home if cpu is None else {cpu})
            self.cpu = cpu

    def end(self) -> None:
        self.mail[MAIL.stop // 8] = 1
        self.mail[MAIL.generation // 8] += 1
        self.wake.release()
        self.thread.join()


class Workers:
    """All workers of this process, and who has them. Teams take turns in the order in which they come."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._every: list[Worker] = []
        self._sizes: dict[int, int] = {}  # of the teams
        self._queue: deque[tuple[ThreadPool, threading.Semaphore]] = deque()
        self._numbers = 0

    def join(self, team: ThreadPool, work: Native) -> None:
        """A team that will run steps; workers are started for it where there are too few."""
        with self._lock:
            self._sizes[id(team)] = team.threads
            while len(self._every) < self._needed():
                self._numbers += 1
                self._every.append(Worker(work, self._numbers))

    def leave(self, team: ThreadPool) -> None:
        """It runs no more steps; workers that no team needs end."""
        with self._lock:
            self._sizes.pop(id(team), None)
            spare = [worker for worker in self._every if worker.owner is None][: max(0, len(self._every) - self._needed())]
            self._every = [worker for worker in self._every if worker not in spare]
        for worker in spare:
            worker.end()

    def _needed(self) -> int:
        """For the largest team; for several at once as far as there are CPUs."""
        sizes = [size - 1 for size in self._sizes.values() if size > 1]
        at_once = min(sum(sizes), len(processors.allowed()) - len(sizes))
        return max(0, at_once, *sizes)

    def take(self, team: ThreadPool) -> None:
        """Waits until the team has its workers: `of` tells which. `give` must follow, even if this is interrupted."""
        with self._lock:
            if not self._queue and self._assign(team):
                return
            turn = threading.Semaphore(0)
            self._queue.append((team, turn))
        turn.acquire()

    def _assign(self, team: ThreadPool) -> bool:
        free = [worker for worker in self._every if worker.owner is None]
        if len(free) < team.threads - 1:
            return False
        for worker in free[: team.threads - 1]:
            worker.owner = team
        return True

    def give(self, team: ThreadPool) -> None:
        """The team's workers are free; who waits for them comes next."""
        with self._lock:
            for worker in self._every:
                if worker.owner is team:
                    worker.owner = None
            self._queue = deque(each for each in self._queue if each[0] is not team)
            while self._queue and self._assign(self._queue[0][0]):
                self._queue.popleft()[1].release()

    def of(self, team: ThreadPool) -> list[Worker]:
        return [worker for worker in self._every if worker.owner is team]

    def taken(self, team: ThreadPool) -> set[int]:
        """The CPUs of other teams that run now."""
        others = {worker.owner for worker in self._every} - {None, team}
        return {cpu for other in others if other is not None for cpu in other.cpus}


_workers = Workers()


def _start_anew() -> None:
    """In a process that was forked off: threads are not inherited, and a lock may be held for ever."""
    global _workers
    _workers = Workers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


class ThreadPool:
    """The team of one step head: `threads` threads; the caller's is number 0."""

    def __init__(self, head: np.ndarray, threads: int, kernels: dict[str, int]):
        self.head, self.threads = head, threads
        self._begin, self._lead, work = (_KERNEL(kernels[f"executor.{name}"]) for name in ("begin", "lead", "work"))
        self._address, self._process = int(head.ctypes.data), os.getpid()
        self._mails, self._woken = (aligned(8 * threads, np.int64) for _ in range(2))
        self._woken[:] = 0
        self._team: list[Worker] = []
        self.cpus: list[int] = []  # that the threads are tied to during a run
        self._patience = affinity.Patience()
        _workers.join(self, work)

    def run(self) -> None:
        """One step, on all threads. The GIL is free meanwhile. Raises BackendError in a process forked off after the start."""
        if os.getpid() != self._process:  # threads are not inherited: waiting for them would never end
            raise BackendError("the model was loaded before this process was forked off; load it in the process that uses it")
        if self.threads == 1:
            self._run()
            return
        try:
            _workers.take(self)
            self._gather()
            self._run_tied()
        finally:
            self.cpus = []
            _workers.give(self)

    def limit(self, threads: int) -> None:
        """Run on so many threads from now on, at most those that it began with."""
        self.threads = self.head[STEP.threads // 8] = min(max(1, threads), len(self._mails))

    def _gather(self) -> None:
        """The workers of this run, and their mail."""
        team = _workers.of(self)
        if team != self._team:
            self._team = team
            self._mails[1 : self.threads] = [worker.address for worker in team]

    def _run_tied(self) -> None:
        """Each thread on a CPU of its own, if possible; the caller's is let go afterwards."""
        mine = processors.allowed()
        cpus = affinity.seats(mine, self.threads, _workers.taken(self)) if self._patience.ties() else None
        self.cpus = cpus or []
        for worker, cpu in zip(self._team, cpus[1:] if cpus else [None] * len(self._team), strict=True):
            worker.tie(cpu)
        if not cpus or not affinity.tie(0, cpus[:1]):
            self._run()
            return
        try:
            self._run()
        finally:
            if processors.allowed() == frozenset(cpus[:1]):  # else somebody has changed it meanwhile
                affinity.tie(0, mine)
        self._patience.look([threading.get_native_id(), *(worker.thread.native_id or 0 for worker in self._team)])

    def _run(self) -> None:
        try:
            self._begin(self._address, int(self._mails.ctypes.data), int(self._woken.ctypes.data), 0)
            self._wake_sleepers()
            self._lead(self._address, 0, 0, 0)
        except BaseException:
            # Workers wait for the rest of us, unless the run is over: Ctrl-C within `_lead` is raised behind it.
            if self.head[STEP.begun // 8] != self.head[STEP.ended // 8]:
                self._wake_sleepers()
                self._lead(self._address, 0, 0, 0)
            raise

    def _wake_sleepers(self) -> None:
        for thread, worker in enumerate(self._team, 1):
            if self._woken[thread]:
                worker.wake.release()
                self._woken[thread] = 0

    def close(self) -> None:
        """Workers that no other team needs end. No step of this team may be running."""
        _workers.leave(self)
        self._team = []
