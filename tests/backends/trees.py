"""Folders that look like proc and sys of other machines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def tree(root: Path, files: Mapping[str, object]) -> Path:
    """A root with these files, each with a newline behind its content."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def machine(cores: list[list[int]], nodes: list[str] | None = None, more: Mapping[str, object] | None = None) -> dict[str, object]:
    """The files of a machine with these CPUs in each core, and these lists of CPUs in each memory node."""
    files: dict[str, object] = {}
    for core in cores:
        for cpu in core:
            files[f"sys/devices/system/cpu/cpu{cpu}/topology/core_cpus_list"] = ",".join(map(str, core))
    for node, cpus in enumerate(nodes or []):
        files[f"sys/devices/system/node/node{node}/cpulist"] = cpus
    if nodes:
        files["sys/devices/system/node/has_memory"] = ",".join(map(str, range(len(nodes))))
    return files | dict(more or {})
