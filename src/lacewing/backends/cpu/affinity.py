"""Where the threads of a step run: one CPU each, on cores of their own as far as there are any, and when they are let go.

Left alone the system puts two busy threads on one core at times, and a step waits for its slowest thread. A thread that is tied to
a CPU cannot move away from what else runs there, so it is let go for a while if it had to wait for the CPU. Only Linux allows
both; elsewhere, and where there are more threads than CPUs, the system decides.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path

from lacewing.backends import processors
from lacewing.backends.cgroups import ROOT, cpu_quota
from lacewing.backends.cpu.probe import shared_cores
from lacewing.backends.processors import Processor

CAN_PIN = sys.platform == "linux"
SWITCH = "LACEWING_AFFINITY"  # 0: the system decides
CHECK_SECONDS = 0.1
WAITED = 0.1  # of the time; more is another program's
LOOSE_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)  # the first time, the second time in a row ...


@cache
def cores(cpus: frozenset[int], root: Path = ROOT) -> list[Processor]:
    """These CPUs and their cores; a virtual machine that shows none that are shared is asked by timing (probe.py)."""
    found = processors.processors(cpus, root)
    if len(found) < 2 or len({each.core for each in found}) < len(found) or not processors.is_virtual(root):
        return found
    lowest = {cpu: core[0] for core in shared_cores(cpus) for cpu in core}
    return [Processor(each.number, lowest.get(each.number, each.core), each.node, each.capacity) for each in found]


def default_threads() -> int:
    """One for each fast core that this process may use, no more than the CPU time that control groups leave it."""
    if CAN_PIN:
        return processors.default_count(cores(processors.allowed()), cpu_quota())
    return processors.default_elsewhere()


@cache
def _order(cpus: frozenset[int]) -> tuple[int, ...]:
    return tuple(processors.order_of(cores(cpus)))


def seats(cpus: frozenset[int], count: int, taken: Collection[int] = ()) -> list[int] | None:
    """A CPU for each of `count` threads, none of those taken; None: the system decides."""
    if not CAN_PIN or os.environ.get(SWITCH) == "0" or count > len(cpus):
        return None
    free = [cpu for cpu in _order(cpus) if cpu not in taken]
    return free[:count] if len(free) >= count else None


def memory_nodes(count: int, root: Path = ROOT) -> tuple[int, ...]:
    """Those of the CPUs that `count` threads take; (): this machine has one node."""
    nodes = processors.nodes_of(root) if CAN_PIN else {}
    if len(nodes) < 2:
        return ()
    cpus = processors.allowed()
    used = frozenset(seats(cpus, count) or cpus)
    return tuple(node for node, members in nodes.items() if members & used)


def tie(thread: int, cpus: Collection[int]) -> bool:
    """Let a thread (0: the caller) run on these CPUs only; False where the system refuses."""
    try:
        os.sched_setaffinity(thread, cpus)
    except OSError:  # a thread that is gone, or a cpuset that has changed
        return False
    return True


class Patience:
    """Whether threads should be tied now: not for a while after they had to wait for their CPUs."""

    def __init__(self) -> None:
        self._checked, self._loose_until, self._in_a_row = 0.0, 0.0, 0
        self._before: dict[int, int] = {}

    def ties(self) -> bool:
        return time.monotonic() >= self._loose_until

    def look(self, threads: Sequence[int]) -> None:
        """After a step on these tied threads (native ids): now and then, how long did they wait for their CPUs?"""
        now = time.monotonic()
        if now - self._checked < CHECK_SECONDS:
            return
        elapsed, before = now - self._checked, self._before
        self._checked, self._before = now, {thread: waited for thread in threads if (waited := waited_of(thread)) is not None}
        if elapsed > 4 * CHECK_SECONDS:  # nothing ran in between, or the system decided
            return
        waits = [waited - before[thread] for thread, waited in self._before.items() if thread in before]
        if waits and max(waits) > WAITED * 1e9 * elapsed:
            self._loose_until = now + LOOSE_SECONDS[min(self._in_a_row, len(LOOSE_SECONDS) - 1)]
            self._in_a_row += 1
        else:
            self._in_a_row = 0


def waited_of(thread: int) -> int | None:
    """Nanoseconds that a thread of this process was ready to run and did not; None where the system does not tell."""
    try:
        words = Path(f"/proc/self/task/{thread}/schedstat").read_text().split()
        return int(words[1])
    except (OSError, ValueError, IndexError):
        return None
