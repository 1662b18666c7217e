"""Whole commands, timed from outside: the time to the first token, and the first run of all, which compiles the kernels."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.models import REAL, path_of


def _seconds(path: Path, threads: int, environment: Mapping[str, str] | None = None) -> float:
    command = [
        str(Path(sys.executable).with_name("lacewing")),
        "run",
        str(path),
        "Hi",
        "--max-tokens",
        "1",
        "--threads",
        str(threads),
    ]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - began


def first_token(threads: int, runs: int = 7) -> list[float]:
    """Seconds of `lacewing run smollm2 Hi --max-tokens 1`, begin to end, kernels cached."""
    path = path_of(REAL[0])
    _seconds(path, threads)  # fills the caches
    return [_seconds(path, threads) for _ in range(runs)]


def first_run(threads: int) -> dict[str, float]:
    """Seconds of the same command for each real model when the cache of kernels is empty."""
    found = {}
    for name in REAL:
        with tempfile.TemporaryDirectory() as cache:
            found[name] = _seconds(path_of(name), threads, {**os.environ, "LACEWING_CACHE": cache})
    return found
