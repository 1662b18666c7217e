"""The control groups (v1 and v2) that this process is in, and the share of the CPUs that they leave it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")
CPU, MEMORY = "cpu", "memory"


def group_folders(controller: str, root: Path = ROOT) -> Iterator[tuple[int, Path]]:
    """(1 or 2, folder) of each group of that controller from the mount down to the process's own. `root` holds proc and sys.

    The folder of version 2 belongs to all controllers; whether it limits this one, its files tell.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mount = root / "sys/fs/cgroup"
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        version, folder = (1, _mount_of(mount, controllers, controller)) if controllers else (2, mount)
        for part in ("", *(part for part in path.split("/") if part not in ("", ".", ".."))):
            folder = folder / part
            yield version, folder


def _mount_of(mount: Path, controllers: str, controller: str) -> Path:
    """Version 1 mounts controllers alone or together, as in `cpu,cpuacct`."""
    return next((mount / name for name in (controller, controllers) if (mount / name).is_dir()), mount / controller)


def cpu_quota(root: Path = ROOT) -> float | None:
    """How many CPUs' time this process may use, the tightest of all groups above it; None: no limit."""
    found = [quota for version, folder in group_folders(CPU, root) if (quota := _quota(version, folder)) is not None]
    return min(found, default=None)


def _quota(version: int, folder: Path) -> float | None:
    try:
        if version == 2:
            words = (folder / "cpu.max").read_text().split()
        else:
            words = [(folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period")]
        quota, period = int(words[0]), int(words[1])
    except (OSError, ValueError, IndexError):  # `max`, and -1 below, say that there is no limit
        return None
    return quota / period if quota > 0 and period > 0 else None


def number(path: Path) -> int | None:
    """What a file of one number says."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
