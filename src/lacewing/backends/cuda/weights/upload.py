"""Brings weights to the device: matrices cut into planes, vectors as float32.

A matrix goes in pieces, through pinned memory that the host fills in turns while the device copies and cuts the piece before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from math import gcd

import numpy as np

from lacewing.backends.cuda.arguments import Matrix, Packed, Pointer, blocks
from lacewing.backends.cuda.device.device import Buffer, Device
from lacewing.backends.cuda.weights.staging import Staging, capacity_for
from lacewing.backends.gpu import stacks
from lacewing.backends.gpu.conversion import Rows, stored_as, widest
from lacewing.backends.gpu.layouts import GROUP, LAYOUTS, RUN
from lacewing.backends.step import SwapIn
from lacewing.backends.weights import WeightView
from lacewing.errors import UnsupportedModelError

READERS = min(8, os.cpu_count() or 1)  # threads that copy and convert
SHARE_BYTES = 2**20  # of a piece for a thread, at least


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

    def vector(self, weight: WeightView) -> Buffer:
        """All values of a weight as float32."""
        if weight.scales is not None and len(weight.shape) < 2:
            raise UnsupportedModelError(f"weight {weight.name} is a vector with factors, which the GPU lacks; use `backend='cpu'`")
        if len(weight.shape) > 1:
            rows = Rows(weight, "F32")
            values = np.ascontiguousarray(rows.values(0, rows.count), np.float32)
        else:  # in several places of its files where each head's are a tensor
            values = np.concatenate([weight.quant.dequantise(part).reshape(-1) for part in weight.parts]).astype(np.float32)
        buffer = self.device.buffer(values.nbytes, weight.name)
        self.device.write(buffer, 0, values)
        self._tell(sum(part.nbytes for part in weight.parts))
        return buffer

    def matrix(self, weights: Sequence[WeightView], transposed: bool = False) -> Matrix:
        """The rows of all `weights`, which share their width, one after another; columns, if `transposed`.

        Raises OutOfMemoryError, or UnsupportedModelError for rows that are no whole blocks.
        """
        stored = widest({stored_as(weight, transposed) for weight in weights})
        sources = [Rows(weight, stored, transposed) for weight in weights]
        for weight in weights:
            if stored not in (weight.quant.name, "MXFP4"):
                self.converted.add((weight.quant.name, stored))
        layout, columns, name = LAYOUTS[stored], sources[0].columns, weights[0].name
        groups, rows = blocks(columns, GROUP), sum(source.count for source in sources)
        buffers = tuple(self.device.buffer(plane.nbytes(rows * groups), f"{name} ({plane.name})") for plane in layout.planes)
        matrix = Matrix(layout, rows, columns, groups, buffers)
        self._fill(matrix, sources)
        return matrix

    def reserve(self, nbytes: int) -> None:
        """Have the memory that so many bytes take on their way, so that it cannot be missing later. Raises OutOfMemoryError."""
        self._room(nbytes)

    def refill(self, matrix: Matrix, weight: WeightView, place: int, transposed: bool = False) -> None:
        """Write the rows of a weight over those of a matrix, at the `place`-th multiple of their number, which is whole runs."""
        rows = Rows(weight, matrix.layout.quant, transposed)
        self._fill(matrix, [rows], place * rows.count)

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
        staging = self._room(total * row_bytes)
        step = RUN // gcd(matrix.groups, RUN)  # rows that are whole runs
        most = total if total * row_bytes <= staging.capacity else staging.capacity // (row_bytes * step) * step
        if most == 0:
            raise UnsupportedModelError(
                f"weight {sources[0].weight.name}: a row takes {row_bytes} bytes, more than the GPU backend moves at once; "
                "use `backend='cpu'`"
            )
        function = self.device.function("pack", {"QUANT": matrix.quant})
        told, source_bytes = 0, sum(source.source_bytes for source in sources)
        for at in range(0, total, most):
            count = min(most, total - at)
            memory = staging.memory()[: count * row_bytes].reshape(count, row_bytes)
            self._read(sources, at, memory)
            runs, begin = blocks(count * matrix.groups, RUN), (first + at) * matrix.groups // RUN
            planes = [buffer.address for buffer in matrix.buffers] + [0] * (4 - len(matrix.buffers))
            words = (begin, runs, (first + at + count) * matrix.groups)
            packed = Packed([
                staging.source_bytes, np.array(planes, np.uint64).tobytes(), *(np.uint64(word).tobytes() for word in words)
            ])  # fmt: skip
            staging.send(memory.nbytes, function, (blocks(runs, function.kernel.threads), 1, 1), packed)
            now = source_bytes * (at + count) // total
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


ResidentStack = stacks.ResidentStack[Matrix, Pointer]


def put(device: Device, held: Sequence[ResidentStack], moves: Sequence[SwapIn], begin: Callable[[], None]) -> None:
    """See `backends.step.Step.put_experts`."""

    def write(bias: Pointer, offset: int, values: np.ndarray) -> None:
        if bias.buffer is not None:
            device.write(bias.buffer, offset, values)

    with device.lock:
        stacks.swap_in(Uploader(device), held, moves, begin, write)
