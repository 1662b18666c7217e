"""`lacewing backends`."""

from __future__ import annotations

from typing import Any

from lacewing.backends import PREFERENCE, candidates
from lacewing.console.output import print_facts
from lacewing.errors import BackendError
from lacewing.options import format_bytes

_SHOWN = ("max-buffer-size", "max-storage-buffer-binding-size", "max-storage-buffers-per-shader-stage",
          "max-compute-invocations-per-workgroup", "max-compute-workgroup-storage-size")  # fmt: skip
_OF_USE = ("subgroup", "shader-f16", "timestamp-query", "timestamp-query-inside-passes")  # of a GPU's many features


def backends(*, as_json: bool) -> None:
    """Print every backend with its devices, and which of them `auto` would take, and why; all features and limits as JSON only."""
    found = [{"name": name, **_devices(name)} for name in PREFERENCE]
    print_facts({"backends": found}, _page, as_json=as_json)


def _devices(name: str) -> dict[str, Any]:
    try:
        found = candidates(name)
    except BackendError as error:
        return {"devices": [], "problem": str(error)}
    rows = [
        {
            "adapter": each.index,
            "name": each.facts.name,
            "kind": each.facts.kind,
            "memory_bytes": each.facts.memory_bytes,
            "threads": each.facts.threads,
            "features": list(each.facts.features),
            "limits": dict(each.facts.limits),
            "auto": each.auto,
            "reason": each.reason,
        }
        for each in found
    ]
    return {"devices": rows, "problem": None}


def _page(found: dict[str, Any]) -> str:
    lines = []
    for rows in found["backends"]:
        name = rows["name"]
        if rows["problem"]:
            lines.append(f"{name:<11}not available: {rows['problem']}")
        for device in rows["devices"]:
            number = "" if device["adapter"] is None else f"adapter {device['adapter']}: "
            lines.append(f"{name:<11}{number}{device['name']}, {device['kind']}, {_memory(device)}")
            lines += [f"           {text}" for text in _details(device)]
            lines.append(f"           auto: {'yes' if device['auto'] else 'no'}, {device['reason']}")
    return "\n".join(lines)


def _memory(device: dict[str, Any]) -> str:
    return f"{format_bytes(device['memory_bytes'])} of memory" if device["memory_bytes"] else "unknown memory"


def _details(device: dict[str, Any]) -> list[str]:
    shown = [f"{name.removeprefix('max-')} {device['limits'][name]}" for name in _SHOWN if name in device["limits"]]
    on_gpu = device["adapter"] is not None
    features = ", ".join(name for name in device["features"] if not on_gpu or name in _OF_USE)
    threads = [f"threads: {device['threads']}"] if device["kind"] == "CPU" else []
    return [*threads, *([f"features: {features}"] if features else []), *([f"limits: {', '.join(shown)}"] if shown else [])]
