"""How much memory this process may still take: free memory, control groups (v1 and v2), and the process's own limit."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from lacewing.backends.cgroups import MEMORY, ROOT, group_folders, number


@dataclass(frozen=True)
class Machine:
    """Bytes. `available` may still be taken; `bound_by` says what sets it, in words."""

    total_bytes: int
    available_bytes: int
    bound_by: str


def this_machine(root: Path = ROOT) -> Machine:
    """Look at this machine now. `root` holds proc and sys; tests give their own."""
    memory = psutil.virtual_memory()
    bounds = [(int(memory.available), "the free memory"), *_control_groups(root), *_process_limit()]
    available, bound_by = min(bounds)
    return Machine(int(memory.total), max(available, 0), bound_by)


def process_bytes() -> int:
    """Memory of this process that is resident now, mapped files included."""
    return int(psutil.Process().memory_info().rss)


def _control_groups(root: Path) -> list[tuple[int, str]]:
    """What each control group above this process leaves, page cache counted as free."""
    left = []
    for version, folder in group_folders(MEMORY, root):
        files = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        limit, used = number(folder / files[0]), number(folder / files[1])
        if limit is not None and used is not None and limit < 2**62:  # v1 writes a huge number for none
            left.append((limit - used + _page_cache(folder / "memory.stat"), "the cgroup memory limit"))
    return left


def _page_cache(path: Path) -> int:
    """File pages that the system would give up first."""
    try:
        words = dict(line.split()[:2] for line in path.read_text().splitlines() if len(line.split()) == 2)
        prefix = "total_" if "total_inactive_file" in words else ""
        return sum(int(words.get(prefix + name, 0)) for name in ("inactive_file", "active_file"))
    except (OSError, ValueError):
        return 0


def _process_limit() -> list[tuple[int, str]]:
    """What `ulimit -v` leaves."""
    if sys.platform == "win32":
        return []
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return []
    return [(limit - int(psutil.Process().memory_info().vms), "the address space limit of the process")]


def is_running(process_id: int) -> bool:
    """Whether there is such a process on this machine now."""
    with contextlib.suppress(OverflowError):  # no process has such a number
        return bool(psutil.pid_exists(process_id))
    return False
