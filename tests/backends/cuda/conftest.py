"""Kernels that tests compile are kept for all of them, but not among those of a person."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator

import pytest

collect_ignore_glob = ["*"] if sys.platform == "darwin" else []  # NVIDIA has no driver and no compiler for macOS


@pytest.fixture(scope="package", autouse=True)  # not for the tests after these: kernels of the CPU are kept elsewhere
def kernel_cache() -> Iterator[None]:
    before = os.environ.get("LACEWING_CACHE")
    with tempfile.TemporaryDirectory(prefix="lacewing-cuda-") as folder:
        os.environ["LACEWING_CACHE"] = folder
        yield
        if before is None:
            del os.environ["LACEWING_CACHE"]
        else:
            os.environ["LACEWING_CACHE"] = before
