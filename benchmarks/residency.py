"""`/lazy off` beside reading the file once: `python -m benchmarks.residency FILE [--runs 5]`.

Every run is a process of its own, which either reads the file with numpy.fromfile into fresh memory of its size or makes lazy
weights eager, several times in a row; before that it reads the file into one buffer of 16 MiB, again and again. The first time in
a process is told by itself: the system, and on a virtual machine the one below it, may have to find the memory first. The file
is in the page cache. The best of all runs counts; the ratios say what a conversion costs beside either way to read.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

BUFFER, TIMES = 16 * 2**20, 4  # bytes; how often a process does its work


def read_in_pieces(path: Path) -> None:
    """The whole file, into one buffer that is used again."""
    buffer = bytearray(BUFFER)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def read_whole(path: Path) -> list[float]:
    """Seconds of each time; the memory is given back in between."""
    import numpy as np

    return [seconds(lambda: np.fromfile(path, np.uint8)) for _ in range(TIMES)]


def convert(path: Path) -> list[float]:
    """Seconds of each change from lazy to eager weights."""
    from lacewing.backends.cpu import CpuBackend
    from lacewing.formats import open_checkpoint
    from lacewing.models import open_model
    from lacewing.weights import WeightStore

    spec = open_model(open_checkpoint(path))
    store, found = WeightStore(spec.tensors), []
    store.arrange(CpuBackend(None).tile_orders(spec.program, store))
    for _ in range(TIMES):
        found.append(seconds(lambda: store.set_residency("eager")))
        store.set_residency("lazy")
    return found


WORK = {"read": read_whole, "convert": convert}


def measure(path: Path, what: str) -> dict[str, float]:
    """In this process: the best reading into a buffer, the first time of the work, and the best later one."""
    read_in_pieces(path)
    buffer = min(seconds(lambda: read_in_pieces(path)) for _ in range(TIMES))
    first, *later = WORK[what](path)
    return {"buffer": buffer, "first": first, "later": min(later)}


def best(path: Path, what: str, runs: int) -> dict[str, float]:
    """The best of some processes."""
    words = [sys.executable, "-m", "benchmarks.residency", str(path), "--only", what]
    found = [json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout) for _ in range(runs)]
    return {name: min(each[name] for each in found) for name in found[0]}


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Lazy to eager weights, beside reading the file once.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", choices=sorted(WORK), help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    if given.only:
        print(json.dumps(measure(given.file, given.only)))
        return
    read, changed = best(given.file, "read", given.runs), best(given.file, "convert", given.runs)
    buffer = min(read["buffer"], changed["buffer"])
    print(f"{given.file.name}, {given.file.stat().st_size / 2**20:.0f} MiB; read in pieces of 16 MiB: {1000 * buffer:.0f} ms")
    for name in ("first", "later"):
        mine, whole = changed[name], read[name]
        print(
            f"{name} conversion: {1000 * mine:.0f} ms; read into fresh memory: {1000 * whole:.0f} ms; "
            f"{mine / whole:.2f} x that, {mine / buffer:.2f} x reading in pieces"
        )


if __name__ == "__main__":
    main()
