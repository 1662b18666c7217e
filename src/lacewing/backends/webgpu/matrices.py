"""Weights on the device: matrices cut into planes, vectors as float32.

A matrix is uploaded in parts through one staging buffer, straight from the checkpoint's mapped bytes, and cut on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lacewing.backends.base import WeightView
from lacewing.backends.webgpu.device import Device, Slice
from lacewing.backends.webgpu.layouts import GROUP, LAYOUTS, RUN, Layout
from lacewing.backends.webgpu.raw import Recorder
from lacewing.backends.webgpu.shaders import shader
from lacewing.errors import OutOfMemoryError

STAGING_BYTES = 2**25
_ITEMS = {"F32": np.float32, "F16": np.uint16, "BF16": np.uint16}


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
    """Brings weights to a device. `tell(bytes)` is called as they go, and may raise to cancel."""

    def __init__(self, device: Device, tell: Callable[[int], None] = lambda _: None):
        self.device, self._tell = device, tell
        self._staging = device.buffer(STAGING_BYTES, "the staging buffer of weights")
        self._job = device.buffer(256, "the staging buffer's job")

    def close(self) -> None:
        self.device.free(self._staging)
        self.device.free(self._job)

    def vector(self, weight: WeightView) -> Slice:
        """All values of a weight as float32."""
        values = np.ascontiguousarray(np.concatenate([weight.quant.dequantise(part) for part in weight.parts]), np.float32)
        buffer = self.device.buffer(values.nbytes, weight.name)
        self.device.write(buffer, 0, values)
        self._tell(sum(part.nbytes for part in weight.parts))
        return Slice(buffer, 0, buffer.size)

    def matrix(self, weights: Sequence[WeightView], indivisible: int = 1) -> Matrix:
        """The rows of all `weights`, which share quant and width, one after another.

        Shards hold whole multiples of `indivisible` rows, such as those of an expert.
        """
        layout, columns = LAYOUTS[weights[0].quant.name], weights[0].shape[-1]
        groups = -(-columns // GROUP)
        rows = sum(int(np.prod(weight.shape[:-1])) for weight in weights)
        shards, buffers = [], []
        for first, count in self._cuts(layout, rows, groups, indivisible, weights[0].name):
            made = [
                self.device.buffer(plane.nbytes(count * groups), f"{weights[0].name} ({plane.name})") for plane in layout.planes
            ]
            buffers += made
            shards.append(Shard(first, count, tuple(Slice(buffer, 0, buffer.size) for buffer in made)))
        matrix = Matrix(layout, rows, columns, groups, tuple(shards), tuple(buffers))
        self._fill(matrix, weights)
        return matrix

    def _cuts(self, layout: Layout, rows: int, groups: int, indivisible: int, name: str) -> list[tuple[int, int]]:
        """First row and number of rows of each shard. Shards start at whole runs."""
        largest = max(plane.nbytes(RUN * groups * indivisible) for plane in layout.planes)
        count = self.device.largest_buffer // largest * RUN * indivisible
        if count == 0:
            raise OutOfMemoryError(
                f"{name} does not fit the {self.device.largest_buffer} bytes that this GPU binds; use --backend cpu"
            )
        return [(first, min(count, rows - first)) for first in range(0, rows, count)]

    def _fill(self, matrix: Matrix, weights: Sequence[WeightView]) -> None:
        quant = weights[0].quant
        run_bytes = RUN * GROUP // quant.block_elements * quant.block_bytes
        pipeline = self.device.pipeline(shader("pack", layout=matrix.layout), f"pack {quant.name}")
        group = None
        shard_index, done = 0, 0  # groups of the shard that are there
        part_runs = STAGING_BYTES // run_bytes // 2 * 2
        for data in _rows(weights, matrix):
            at = 0
            while at < data.nbytes:
                shard = matrix.shards[shard_index]
                total = shard.rows * matrix.groups
                if group is None:
                    staging = Slice(self._staging, 0, self._staging.size)
                    group = self.device.bind(pipeline, [staging, Slice(self._job, 0, 256), *shard.planes])
                left = -(-(total - done) // RUN)
                runs = min(part_runs, left, -(-(data.nbytes - at) // run_bytes))
                piece = data[at : at + runs * run_bytes]
                self._pack(pipeline, group, piece, (done // RUN, runs, total))
                at += piece.nbytes
                done += piece.nbytes * RUN // run_bytes
                self._tell(piece.nbytes)
                if done == total:
                    shard_index, done, group = shard_index + 1, 0, None

    def _pack(self, pipeline: Any, group: Any, piece: np.ndarray, job: tuple[int, int, int]) -> None:
        odd = piece.nbytes % 4
        if odd:
            piece = np.concatenate([piece, np.zeros(4 - odd, np.uint8)])
        self.device.write(self._staging, 0, piece)
        self.device.write(self._job, 0, np.array([*job, 0], np.uint32))
        workgroups = -(-job[1] // 64)
        recorder = Recorder(self.device.device)
        recorder.dispatches([(pipeline.handle, group._internal, min(workgroups, 65535), -(-workgroups // 65535), 1)])
        recorder.submit()
        self.device.wait()  # the staging memory of queued writes must not pile up


def _rows(weights: Sequence[WeightView], matrix: Matrix) -> list[np.ndarray]:
    """The bytes of the rows, with every row brought to whole groups."""
    parts = [part.reshape(-1) for weight in weights for part in weight.parts]
    if matrix.columns % GROUP:
        item = _ITEMS[matrix.layout.quant]
        rows = np.concatenate([part.view(item).reshape(-1, matrix.columns) for part in parts])
        padded = np.zeros((len(rows), matrix.groups * GROUP), item)
        padded[:, : matrix.columns] = rows
        return [padded.reshape(-1).view(np.uint8)]
    group_bytes = sum(part.nbytes for part in parts) // (matrix.rows * matrix.groups)
    if any(part.nbytes // group_bytes % RUN for part in parts[:-1]):  # a part must begin with a whole run
        return [np.concatenate(parts)]
    return parts
