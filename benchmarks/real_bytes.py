"""A large mixture of experts with the geometry of a published one and random weights, every byte of them on the disk.

    python -m benchmarks.real_bytes gpt-oss-120b FOLDER [--layers N]
    python -m benchmarks.real_bytes deepseek-r1 FOLDER --layers 11

writes a GGUF file, split as publishers split it, and prints the path to open; the names are those of tests/geometries.py. Holes
would be read without the disk, so headers are written first, as for the tests, and then random digits under constant scales into
all weights. `--layers`: only the first ones; three of DeepSeek-R1's are dense.

Random bytes take longer than the disk does, so a pool of blocks is made once for each kind of weight, and written again and again
from places that are drawn. Blocks and pages are of different sizes, so the same blocks seldom make the same page twice, and a disk
that keeps equal pages once would save next to nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

from lacewing.formats import open_checkpoint
from lacewing.formats.checkpoint import TensorInfo
from lacewing.options import format_bytes

POOL = 2**26  # bytes of random blocks of a kind, about
CHUNK = 2**24  # bytes that are written at a time, about
ROUTER = 0.05  # standard deviation of the weights of routers


def blocks_of(info: TensorInfo, count: int, random: np.random.Generator) -> np.ndarray:
    """uint8 (count, bytes of a block): a row times a vector of length 1 has a length near 1. Raises SystemExit for other quants."""
    spread, name = info.shape[-1] ** -0.5, info.quant.name
    if name == "F32":
        values = random.standard_normal(count, np.float32) * np.float32(ROUTER if len(info.shape) > 1 else 0)
        return np.asarray(values + np.float32("norm" in info.name)).view(np.uint8).reshape(count, -1)
    blocks = np.frombuffer(random.bytes(count * info.quant.block_bytes), np.uint8).reshape(count, -1).copy()
    if name == "Q4_K":  # d, dmin, 12 bytes of 6-bit scales and minima, digits of 4 bits
        scale = spread / (32 * 4.61)
        blocks[:, :4] = np.array([scale, 7.5 * scale], np.float16).view(np.uint8)
        blocks[:, 4:12], blocks[:, 12:16] = 0b10_100000, 0
    elif name == "Q8_0":
        blocks[:, :2] = np.array([spread / 74], np.float16).view(np.uint8)
    elif name == "MXFP4":  # digits of a standard deviation near 3 under a power of two
        blocks[:, 0] = 127 + round(np.log2(spread / 3))
    else:
        raise SystemExit(f"{info.name} is {name}, of which no random blocks are made")
    return blocks


class Blocks:
    """Random blocks for weights, of which each kind is made once."""

    def __init__(self) -> None:
        self._random = np.random.Generator(np.random.SFC64(1))
        self._pools: dict[tuple[str, int], np.ndarray] = {}

    def of(self, info: TensorInfo, count: int) -> np.ndarray:
        """uint8 (count, bytes of a block) at most, at least one, from a place that is drawn; numbers in F32 are always new."""
        if info.quant.name == "F32":
            return blocks_of(info, min(count, CHUNK // info.quant.block_bytes), self._random)
        key, size = (info.quant.name, info.shape[-1]), info.quant.block_bytes
        if key not in self._pools:
            self._pools[key] = blocks_of(info, POOL // size, self._random)
        pool, most = self._pools[key], min(count, CHUNK // size)
        first = int(self._random.integers(len(pool) - most + 1))
        return pool[first : first + most]


def fill(path: Path, progress: bool = False) -> int:
    """Write random weights into a checkpoint whose headers are there; the bytes."""
    blocks, done, began = Blocks(), 0, time.perf_counter()
    for info in open_checkpoint(path).tensors.values():
        for part in info.ranges:
            with part.path.open("r+b") as file:
                file.seek(part.offset)
                left = part.nbytes // info.quant.block_bytes
                while left:
                    some = blocks.of(info, left)
                    file.write(some.data)
                    left -= len(some)
                    done += some.nbytes
                os.fdatasync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if progress:
            print(f"\r{format_bytes(done)}, {done / (time.perf_counter() - began) / 1e9:.2f} GB/s", end="", file=sys.stderr)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("geometry")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int)
    arguments = parser.parse_args()
    from tests import geometries, sparse_files

    if arguments.geometry not in geometries.CONFIGS:
        raise SystemExit(f"{arguments.geometry} is none of {', '.join(geometries.CONFIGS)}")
    path = sparse_files.write(arguments.geometry, "gguf", arguments.folder, arguments.layers)
    fill(path, progress=True)
    print(f"\n{path}")


if __name__ == "__main__":
    main()
