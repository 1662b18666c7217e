"""The GPUs of this machine, as wgpu shows them."""

from __future__ import annotations

from typing import Any

import wgpu

from lacewing.errors import BackendError


def adapters() -> list[Any]:
    found = wgpu.gpu.enumerate_adapters_sync()
    return [a for a in found if a.info["backend_type"] != "OpenGL"]


def choose_adapter() -> Any:
    found = adapters()
    if not found:
        raise BackendError("no GPU driver that wgpu can use was found")
    return found[0]
