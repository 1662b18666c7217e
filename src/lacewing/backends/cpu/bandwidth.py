"""This machine's read bandwidth, measured as generation reads: all threads, each its own stream."""

from __future__ import annotations

import statistics
import time

import numpy as np

from lacewing.backends.cpu import native
from lacewing.backends.cpu.arguments import OP, READ
from lacewing.backends.cpu.plan import aligned
from lacewing.backends.cpu.team import Team, head_of

EXECUTOR = ("executor.begin", "executor.lead", "executor.work")


def read_bandwidth(threads: int, nbytes: int = 512 * 2**20, repeats: int = 7) -> float:
    """Bytes a second: the median of `repeats` passes over `nbytes` of touched memory, much more than the caches hold."""
    kernels = native.load([*EXECUTOR, "bandwidth.read"])
    source = aligned(nbytes)
    source.view(np.int64)[:] = np.arange(nbytes // 8)  # real pages: untouched ones would all be the same zero page
    sink = aligned(64 * threads)
    arguments, table = aligned(8 * len(READ), np.int64), aligned(8 * len(OP), np.int64)
    arguments[:] = READ._replace(source=source.ctypes.data, bytes=nbytes, sink=sink.ctypes.data)
    table[:] = OP._replace(kernel=kernels["bandwidth.read"], args=arguments.ctypes.data, barrier=0, spare=0)
    counters = aligned(8, np.int64)
    team = Team(head_of(1, table, arguments, counters, threads), threads, kernels)
    try:
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            team.run()
            seconds.append(time.perf_counter() - start)
    finally:
        team.close()
    return nbytes / statistics.median(seconds)
