"""Dawn's compiler without a GPU: its null device parses every kernel, those of matrix units too, in milliseconds."""

from __future__ import annotations

import re
import threading
from functools import cache

from lacewing.backends.webgpu.device.bindings.dawn import DAWN
from lacewing.backends.webgpu.device.faults import Guard
from tests.backends.webgpu.swiftshader import null

FEATURES = ("subgroup", "shader-f16", "subgroup-matrix")


class Parser:
    """Kernels that differ in numbers alone are parsed once."""

    def __init__(self) -> None:
        self._device, self._lock = DAWN.open(null(), FEATURES, checked=True), threading.Lock()
        self._seen: set[str] = set()

    def check(self, code: str, label: str) -> None:
        """Raises BackendError with Dawn's words for code that it refuses."""
        alike = re.sub(r"\d+", "0", code)
        with self._lock:
            if alike not in self._seen:
                with Guard(DAWN, f"the kernel {label}"):
                    DAWN.module(self._device, code, label, checked=True)
                self._seen.add(alike)


@cache
def parser() -> Parser:
    """One for all tests."""
    return Parser()
