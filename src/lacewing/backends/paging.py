"""Pages of large mappings: huge ones, and on machines with several memory nodes (NUMA), such as two sockets, dealt out in turn.

Weights could instead lie where they are first touched, by the threads that read them later. But only half of a weight has a thread
that is known beforehand, the rest goes to whoever comes first; the experts of a token may be all on one node, and threads may be
moved. Dealt out, every run of memory comes from all nodes at once, whoever reads it. Where all threads run on one node the memory
is taken from that one, as long as it has some.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import platform
import sys
from collections.abc import Collection
from functools import cache

import numpy as np

_INTERLEAVE = 3  # MPOL_INTERLEAVE of linux/mempolicy.h; nodes that are full are passed over
_CALLS = {"x86_64": (237, 239), "aarch64": (235, 236)}  # numbers of mbind and get_mempolicy, which the C library does not have
_WORD = 64  # bits
HUGE_FROM = 4 * 2**20  # bytes; below, huge pages would waste more than they save


def try_huge_pages(area: mmap.mmap) -> None:
    """Have large pages back a mapping, where the system can."""
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them; nothing is lost
            area.madvise(mmap.MADV_HUGEPAGE)


def interleave(memory: np.ndarray, nodes: Collection[int]) -> bool:
    """Deal out the whole pages of a mapping, none of which has been touched yet, to these nodes; whether that was done.

    Nothing is done without nodes, elsewhere than on Linux, where the system refuses, and where the process has a policy of its own
    (`numactl`), which is what its user wants.
    """
    calls = _CALLS.get(platform.machine()) if sys.platform == "linux" else None
    if not nodes or calls is None or not memory.nbytes or _has_policy(calls[1]):
        return False
    words = np.zeros(max(nodes) // _WORD + 1, np.uint64)
    for node in nodes:
        words[node // _WORD] |= np.uint64(1 << node % _WORD)
    page = os.sysconf("SC_PAGESIZE")
    first = -(-memory.ctypes.data // page) * page
    last = (memory.ctypes.data + memory.nbytes) // page * page
    bits = _WORD * words.size + 1  # the kernel takes one less
    return first < last and _call(calls[0], first, last - first, _INTERLEAVE, words.ctypes.data, bits, 0) == 0


def _has_policy(number: int) -> bool:
    mode = ctypes.c_int(0)
    return _call(number, ctypes.addressof(mode), 0, 0, 0, 0) != 0 or mode.value != 0


def _call(number: int, *arguments: int) -> int:
    """What the system answers: 0 or more, -1 for an error."""
    return int(_syscall()(number, *map(ctypes.c_long, arguments)))


@cache
def _syscall() -> ctypes._NamedFuncPointer:
    function = ctypes.CDLL(None, use_errno=True).syscall
    function.restype = ctypes.c_long
    return function
