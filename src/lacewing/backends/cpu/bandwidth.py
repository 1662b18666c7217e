"""This machine's read bandwidth, measured as generation reads: all threads, each its own stream."""

from __future__ import annotations

import time

import numpy as np

from lacewing.backends.cpu import native
from lacewing.backends.cpu.arguments import OP, READ
from lacewing.backends.cpu.memory import aligned
from lacewing.backends.cpu.pool import ThreadPool, head_of

EXECUTOR = ("executor.begin", "executor.lead", "executor.work")


def read_bandwidth(threads: int, nbytes: int = 512 * 2**20, seconds: float = 0.5) -> float:
    """Bytes a second of passes over `nbytes` of touched memory, much more than the caches hold, for about so long.

    Timed as generation is, from the beginning to the end: a median would leave out the pauses that both have on a shared machine.
    """
    kernels = native.load([*EXECUTOR, "bandwidth.read"])
    source = aligned(nbytes)
    for start in range(0, nbytes, 2**20):  # real pages: untouched ones would all be the same zero page
        words = source[start : start + 2**20].view(np.int64)
        words[:] = np.arange(start, start + words.size)
    sink = aligned(64 * threads)
    arguments, table = aligned(8 * len(READ), np.int64), aligned(8 * len(OP), np.int64)
    arguments[:] = READ._replace(source=source.ctypes.data, bytes=nbytes, sink=sink.ctypes.data)
    table[:] = OP._replace(kernel=kernels["bandwidth.read"], args=arguments.ctypes.data, barrier=0, fetch=0)
    counters = aligned(8, np.int64)
    pool = ThreadPool(head_of(1, table, arguments, counters, threads), threads, kernels)
    try:
        pool.run()  # wakes the workers
        passes, began = 0, time.perf_counter()
        while (spent := time.perf_counter() - began) < seconds or not passes:
            pool.run()
            passes += 1
    finally:
        pool.close()
    return passes * nbytes / spent
