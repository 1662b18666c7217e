"""Weights on the device: matrices cut into planes, vectors as float32.

A matrix is uploaded in pieces, straight from the checkpoint's mapped bytes into memory of the driver's, and cut on the device while
the host fills the next piece.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from math import gcd, lcm
from typing import Any

import numpy as np

from lacewing.backends.gpu.conversion import Rows, stored_as, widest
from lacewing.backends.gpu.layouts import GROUP, LAYOUTS, RUN, Layout
from lacewing.backends.webgpu.device.device import Device, Slice
from lacewing.backends.webgpu.kernels import shader
from lacewing.backends.webgpu.weights.staging import Staging, capacity_for
from lacewing.backends.weights import WeightView
from lacewing.errors import OutOfMemoryError, UnsupportedModelError
from lacewing.options import format_bytes

READERS = min(8, os.cpu_count() or 1)  # threads that copy and convert
SHARE_BYTES = 2**20  # of a piece for a thread, at least


@dataclass(frozen=True)
class Shard:
    """Rows `first` to `first + rows` of a matrix, one slice a plane; a binding shows 2 GiB at most."""

    first: int
    rows: int
    planes: tuple[Slice, ...]


@dataclass(frozen=True)
class Matrix:
    """Rows of `groups` groups of 32 values; stacked experts are rows one after another."""

    layout: Layout
    rows: int
    columns: int
    groups: int
    shards: tuple[Shard, ...]
    buffers: tuple[Any, ...]


class Uploader:
    """Brings weights to a device. `tell(bytes)` is called as they go, and may raise to cancel: what was made is then freed.

    `converted`: names of quants that the device keeps as another, with that one, where values may differ.
    """

    def __init__(self, device: Device, tell: Callable[[int], None] = lambda _: None):
        self.device, self._tell = device, tell
        self.converted: set[tuple[str, str]] = set()
        self._staging: Staging | None = None
        self._pool = ThreadPoolExecutor(READERS, "upload")

    def close(self) -> None:
        """Free what only uploads need. After an exception too."""
        self._pool.shutdown()
        if self._staging is not None:
            self._staging.close()

    @property
    def notices(self) -> tuple[str, ...]:
        """One sentence of all that was converted."""
        if not self.converted:
            return ()
        changes = ", ".join(f"{quant} as {stored}" for quant, stored in sorted(self.converted))
        return (f"the GPU keeps weights in another form: {changes}",)

    def vector(self, weight: WeightView) -> Slice:
        """All values of a weight as float32."""
        if weight.scales is not None and len(weight.shape) < 2:
            raise UnsupportedModelError(f"weight {weight.name} is a vector with factors, which the GPU lacks; use `backend='cpu'`")
        if len(weight.shape) > 1:
            rows = Rows(weight, "F32")
            values = np.ascontiguousarray(rows.values(0, rows.count), np.float32)
        else:  # in several places of its files where each head's are a tensor
            values = np.concatenate([weight.quant.dequantise(part).reshape(-1) for part in weight.parts]).astype(np.float32)
        buffer = self.device.buffer(values.nbytes, weight.name)
        try:
            self.device.write(buffer, 0, values)
            self._tell(sum(part.nbytes for part in weight.parts))
        except BaseException:
            self.device.free(buffer)
            raise
        return Slice(buffer, 0, buffer.size)

    def matrix(self, weights: Sequence[WeightView], indivisible: int = 1, transposed: bool = False) -> Matrix:
        """The rows of all `weights`, which share their width, one after another; columns, if `transposed`.

        Shards hold whole multiples of `indivisible` rows, such as those of an expert. Raises OutOfMemoryError, or
        UnsupportedModelError for rows that are no whole blocks.
        """
        stored = widest({stored_as(weight, transposed) for weight in weights})
        sources = [Rows(weight, stored, transposed) for weight in weights]
        for weight in weights:
            if stored not in (weight.quant.name, "MXFP4"):
                self.converted.add((weight.quant.name, stored))
        layout, columns, name = LAYOUTS[stored], sources[0].columns, weights[0].name
        groups, rows = -(-columns // GROUP), sum(source.count for source in sources)
        cuts = self._cuts(layout, rows, groups, indivisible, name)
        shards: list[Shard] = []
        buffers: list[Any] = []
        try:
            for first, count in cuts:
                made = []
                for plane in layout.planes:
                    made.append(self.device.buffer(plane.nbytes(count * groups), f"{name} ({plane.name})"))
                    buffers.append(made[-1])
                shards.append(Shard(first, count, tuple(Slice(buffer, 0, buffer.size) for buffer in made)))
            matrix = Matrix(layout, rows, columns, groups, tuple(shards), tuple(buffers))
            self._fill(matrix, sources)
        except BaseException:
            self.device.settle()  # the kernels that write them
            for buffer in buffers:
                self.device.free(buffer)
            raise
        return matrix

    def largest(self, weight: WeightView) -> float:
        """The largest magnitude in a BF16 weight, all of which is read; infinite if something is not a finite number."""
        values = [part.reshape(-1).view(np.uint16) for part in weight.parts]
        pieces = [each[at : at + SHARE_BYTES] for each in values for at in range(0, each.size, SHARE_BYTES)]
        most = 0
        for found in self._pool.map(_largest_bits, pieces):
            self._tell(0)
            most = max(most, found)
        value = float(np.array(most << 16, np.uint32).view(np.float32))
        return value if value < np.inf else np.inf

    def reserve(self, nbytes: int) -> None:
        """Have the memory that so many bytes take on their way, so that it cannot be missing later. Raises OutOfMemoryError."""
        self._room(nbytes)

    def refill(self, matrix: Matrix, weight: WeightView, place: int, transposed: bool = False) -> None:
        """Write the rows of a weight over those of a matrix, at the `place`-th multiple of their number, which is whole runs."""
        rows = Rows(weight, matrix.layout.quant, transposed)
        self._fill(matrix, [rows], place * rows.count)

    def _cuts(self, layout: Layout, rows: int, groups: int, indivisible: int, name: str) -> list[tuple[int, int]]:
        """First row and number of rows of each shard. Shards start at whole runs."""
        step = lcm(RUN // gcd(groups, RUN), indivisible)
        largest = max(plane.nbytes(step * groups) for plane in layout.planes)
        count = self.device.largest_buffer // largest * step
        if count == 0 and max(plane.nbytes(rows * groups) for plane in layout.planes) > self.device.largest_buffer:
            most = format_bytes(self.device.largest_buffer)
            raise OutOfMemoryError(f"{name} cannot be cut into the {most} that this GPU binds at once; use `backend='cpu'`")
        return [(first, min(count or rows, rows - first)) for first in range(0, rows, count or rows)]

    def _room(self, nbytes: int) -> Staging:
        """Staging memory for a matrix of so many bytes; small models get little."""
        capacity = capacity_for(nbytes)
        if self._staging is None or self._staging.capacity < capacity:
            if self._staging is not None:
                self._staging.close()
                self._staging = None
            self._staging = Staging(self.device, capacity)
        return self._staging

    def _fill(self, matrix: Matrix, sources: Sequence[Rows], first: int = 0) -> None:
        """The rows of a matrix from `first` on, as many as there are in the sources."""
        row_bytes, total = sources[0].nbytes, sum(source.count for source in sources)
        highest = min(total, max(shard.rows for shard in matrix.shards))
        staging = self._room(highest * row_bytes)
        step = RUN // gcd(matrix.groups, RUN)  # rows that are whole runs
        most = highest if highest * row_bytes <= staging.capacity else staging.capacity // (row_bytes * step) * step
        if most == 0:
            raise UnsupportedModelError(
                f"weight {sources[0].weight.name}: a row takes {format_bytes(row_bytes)}, more than the GPU backend moves at once; "
                "use `backend='cpu'`"
            )
        pipeline = self.device.pipeline(shader("pack", layout=matrix.layout), f"pack {matrix.layout.quant}")
        told, source_bytes = 0, sum(source.source_bytes for source in sources)
        for shard in matrix.shards:
            group = self.device.bind(pipeline, [staging.source, staging.job, *shard.planes])
            begin, end = max(0, first - shard.first), min(shard.rows, first + total - shard.first)
            for at in range(begin, end, most):
                count = min(most, end - at)
                memory = staging.memory()[: count * row_bytes].reshape(count, row_bytes)
                self._read(sources, shard.first + at - first, memory)
                runs = -(-count * matrix.groups // RUN)
                job = np.array([at * matrix.groups // RUN, runs, (at + count) * matrix.groups, 0], np.uint32)
                workgroups = -(-runs // 64)
                staging.send(pipeline, group, job, memory.nbytes, (min(workgroups, 65535), -(-workgroups // 65535), 1))
                now = source_bytes * (shard.first + at + count - first) // total
                self._tell(now - told)
                told = now

    def _read(self, sources: Sequence[Rows], first: int, out: np.ndarray) -> None:
        """Rows of all sources from `first` on into `out` (n, row bytes), by several threads where it is worth it."""
        ends = list(accumulate(source.count for source in sources))
        share = max(1, -(-len(out) // max(1, min(READERS, out.nbytes // SHARE_BYTES))))
        work = []
        for source, end in zip(sources, ends, strict=True):
            start = max(first, end - source.count)
            stop = min(first + len(out), end)
            work += [(source, row - end + source.count, out[row - first : min(row + share, stop) - first])
                     for row in range(start, stop, share)]  # fmt: skip
        if len(work) == 1:
            work[0][0].read(*work[0][1:])
        else:
            for _ in self._pool.map(lambda item: item[0].read(*item[1:]), work):
                pass


def _largest_bits(values: np.ndarray) -> int:
    """The largest of BF16 values without their signs, uint16; in two passes, which are quicker than one that makes an array."""
    return max(int(values.view(np.int16).max()), int(values.max()) & 0x7FFF)
