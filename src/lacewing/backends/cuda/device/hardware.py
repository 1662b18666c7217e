"""Whether this machine may have an NVIDIA GPU: told from its files, which is quicker than loading a library."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def hardware() -> bool:
    """Whether files of the driver are there: on Linux a device, or the library that Windows lends it; on Windows its library."""
    if sys.platform == "win32":
        return (Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32" / "nvcuda.dll").exists()
    if not sys.platform.startswith("linux"):
        return False  # there is no driver for macOS
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/usr/lib/wsl/lib/libcuda.so.1").exists()
