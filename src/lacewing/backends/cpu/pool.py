"""Worker threads that live as long as a step: native code that spins between the steps of a generation, then sleeps."""

from __future__ import annotations

import ctypes
import os
import sys
import threading

import numpy as np

from lacewing.backends.cpu.arguments import STEP, STEP_ASLEEP, STEP_GENERATION, STEP_LINE, STEP_STOP
from lacewing.backends.cpu.memory import aligned
from lacewing.errors import BackendError

_KERNEL = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)
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
    head = aligned(STEP_ASLEEP + STEP_LINE * threads, np.int64)
    head[:] = 0
    words = STEP._replace(
        ops=count, table=table.ctypes.data, state=state.ctypes.data, threads=threads, counters=counters.ctypes.data,
        yield_function=yield_address(), spins=WORKER_SPINS,
    )  # fmt: skip
    head[: len(words)] = words
    return head


class ThreadPool:
    """`threads` threads over one step head; the caller's is number 0."""

    def __init__(self, head: np.ndarray, threads: int, kernels: dict[str, int]):
        self.head, self.threads = head, threads
        self._begin, self._lead, self._work = (_KERNEL(kernels[f"executor.{name}"]) for name in ("begin", "lead", "work"))
        self._address, self._process = int(head.ctypes.data), os.getpid()
        self._asleep = aligned(8 * threads, np.int64)
        self._seen = aligned(64 * threads, np.int64)
        self._seen[:] = 0
        self._wake = [threading.Semaphore(0) for _ in range(threads)]
        for thread in range(1, threads):
            head[(STEP_ASLEEP + STEP_LINE * thread) // 8] = 1
        self._workers = [
            threading.Thread(target=self._serve, args=(thread,), name=f"lacewing-{thread}", daemon=True)
            for thread in range(1, threads)
        ]
        for worker in self._workers:
            worker.start()

    def _serve(self, thread: int) -> None:
        while not self.head[STEP_STOP // 8]:
            self._wake[thread].acquire()
            self._work(self._address, thread, int(self._seen.ctypes.data) + 64 * thread, 0)

    def run(self) -> None:
        """One step, on all threads. The GIL is free meanwhile. Raises BackendError in a process forked off after the start."""
        if os.getpid() != self._process:  # threads are not inherited: waiting for them would never end
            raise BackendError("the model was loaded before this process was forked off; load it in the process that uses it")
        before = self.head[STEP_GENERATION // 8]
        try:
            self._begin(self._address, int(self._asleep.ctypes.data), 0, 0)
            self._wake_sleepers()
            self._lead(self._address, 0, 0, 0)
        except BaseException:
            if self.head[STEP_GENERATION // 8] != before:  # Ctrl-C came after the beginning: workers wait for the rest of us
                self._wake_sleepers()
                self._lead(self._address, 0, 0, 0)
            raise

    def _wake_sleepers(self) -> None:
        for thread in range(1, self.threads):
            if self._asleep[thread]:
                self._wake[thread].release()
                self._asleep[thread] = 0

    def close(self) -> None:
        """Let the workers end and wait for them."""
        self.head[STEP_STOP // 8] = 1
        self.head[STEP_GENERATION // 8] += 1
        for thread in range(1, self.threads):
            self._wake[thread].release()
        for worker in self._workers:
            worker.join()
        self._workers = []
