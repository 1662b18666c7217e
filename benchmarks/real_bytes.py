"""A large mixture of experts with the geometry of a published one and random weights, every byte of them on the disk.

    python -m benchmarks.real_bytes gpt-oss-120b FOLDER [--layers N]
    python -m benchmarks.real_bytes deepseek-r1 FOLDER --layers 11

writes a GGUF file, split as publishers split it, and prints the path to open; the names are those of tests/geometries.py. Holes
would be read without the disk, so headers are written first, as for the tests, and then random digits under constant scales into
all weights. `--layers`: only the first ones; three of DeepSeek-R1's are dense.
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

CHUNK = 2**26  # bytes that are made at a time, about
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


def fill(path: Path, progress: bool = False) -> int:
    """Write random weights into a checkpoint whose headers are there; the bytes."""
    random, done, began = np.random.Generator(np.random.SFC64(1)), 0, time.perf_counter()
    for info in open_checkpoint(path).tensors.values():
        size = info.quant.block_bytes
        for part in info.ranges:
            with part.path.open("r+b") as file:
                file.seek(part.offset)
                for first in range(0, part.nbytes // size, CHUNK // size):
                    count = min(CHUNK // size, part.nbytes // size - first)
                    file.write(blocks_of(info, count, random).data)
                    done += count * size
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
