"""SwiftShader, the software GPU of Chromium: Dawn opens it, where Debian's Mesa is too old."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from lacewing.backends.webgpu.backend import WebGPUBackend
from lacewing.backends.webgpu.device.device import Device
from tools import chromium

NAME = "vk_swiftshader_icd.json"


def driver() -> str:
    """The description of the driver, beside the browser or where Debian keeps it."""
    beside = Path(os.path.realpath(chromium.find() or "/usr/bin/chromium")).parent
    places = [folder / NAME for folder in (beside, Path("/usr/lib/chromium"), Path("/opt/google/chrome"))]
    return str(next((place for place in places if place.exists()), places[1]))


DRIVER = driver()


@cache
def shown() -> list[Any]:
    """All that Dawn has, with SwiftShader: it looks for drivers once in a process."""
    from lacewing.backends.webgpu.device.bindings.dawn import DAWN

    with patch.dict(os.environ, {"VK_DRIVER_FILES": DRIVER, "VK_ICD_FILENAMES": DRIVER}):
        return DAWN.adapters(["Vulkan", "Null"])


def adapter() -> Any:
    """Raises AssertionError where Chromium, and so its driver, is missing."""
    found = [gpu for gpu in shown() if "SwiftShader" in gpu.info["device"]]
    assert len(found) == 1, f"Dawn's tests need SwiftShader, which Debian's chromium has at {DRIVER}"
    return found[0]


def null() -> Any:
    """Dawn's null device: it has every feature, compiles, and computes nothing."""
    return next(gpu for gpu in shown() if gpu.info["backend_type"] == "Null")


@cache
def backend(variant: str) -> WebGPUBackend:
    """One device a variant, with checked shaders."""
    with patch.dict(os.environ, {"LACEWING_WEBGPU": variant}):
        return WebGPUBackend(Device(adapter(), checked=True))
