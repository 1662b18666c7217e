"""Whether this machine may have an NVIDIA GPU: told from its files, which is quicker than loading a library."""

from __future__ import annotations

import sys
from pathlib import Path


def hardware() -> bool:
    """On Linux a device of NVIDIA's driver, or the one that Windows lends; elsewhere only the library can tell."""
    return not sys.platform.startswith("linux") or any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()
