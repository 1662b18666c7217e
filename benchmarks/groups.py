"""Control groups that limit memory, the page cache included, and what the system counts. Needs the right to make them (root)."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[Path]:
    """A control group below that of this process."""
    version = 1 if V1.is_dir() else 2
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    own = next(line.split(":", 2)[2] for line in lines if (":memory:" in line if version == 1 else line.startswith("0::")))
    folder = (V1 if version == 1 else V2) / own.lstrip("/") / f"lacewing-{os.getpid()}"
    folder.mkdir()
    try:
        (folder / ("memory.limit_in_bytes" if version == 1 else "memory.max")).write_text(str(limit))
        yield folder
    finally:
        for _ in range(50):  # pages of the ended process may still be counted
            with contextlib.suppress(OSError):
                folder.rmdir()
                break
            time.sleep(0.1)


def within(group: Path | None, command: list[str]) -> list[str]:
    """The command, which enters the group before it begins; None: it stays outside."""
    if group is None:
        return command
    return ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh", *command]


def peak_of(group: Path | None) -> int:
    """Most bytes that a group has had, page cache included; 0 outside of one."""
    names = () if group is None else (group / "memory.max_usage_in_bytes", group / "memory.peak")
    return next((int(name.read_text()) for name in names if name.exists()), 0)


def forget(path: Path) -> None:
    """Have the system drop a file from its page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cached_bytes(path: Path) -> int:
    """Of a file in the page cache, by mincore; it may be larger than memory."""
    size = path.stat().st_size
    pages = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
        start = np.frombuffer(mapping, np.uint8)  # a private mapping that may be written would have to fit in memory
        address, length, found = start.ctypes.data, ctypes.c_size_t(size), pages.ctypes.data
        failed = ctypes.CDLL(None, use_errno=True).mincore(ctypes.c_void_p(address), length, ctypes.c_void_p(found))
        del start
    if failed:
        raise OSError(ctypes.get_errno(), "mincore failed")
    return mmap.PAGESIZE * int((pages & 1).sum())


class Counters:
    """Of this process since its beginning: bytes that it had read from the disk, major faults, CPU seconds; swap in use."""

    def __init__(self) -> None:
        lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
        used = resource.getrusage(resource.RUSAGE_SELF)
        self.read_bytes, self.major_faults, self.cpu = int(lines["read_bytes"]), used.ru_majflt, used.ru_utime + used.ru_stime
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
        self.swap = 1024 * int(status.get("VmSwap", "0 kB").split()[0])
