"""Times of dispatches by the device's own clock, and what they say of the kernels of a model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lacewing.backends.step import KernelTime
from lacewing.backends.webgpu.device.device import Device, Slice
from lacewing.backends.webgpu.device.raw import Recorded, Recorder, timestamp_period
from lacewing.backends.webgpu.kernels import shader
from lacewing.errors import BackendError

SECONDS, ROUNDS = 0.5, 3  # a GPU that idled takes its time to clock up; at least so many runs are timed
COPY_BYTES = 2**30
MOST = 1024  # passes that are timed at once; a set of queries has 4096 places at most


@dataclass
class Timed:
    """The dispatches of a kernel in a run, and the bytes of weights that they read."""

    recorded: list[tuple[Any, Any, int, int, int]] = field(default_factory=list)
    nbytes: int = 0


class Clock:
    """Raises BackendError for a GPU that has no clock."""

    def __init__(self, device: Device):
        if "timestamp-query" not in device.features:
            raise BackendError("this GPU has no clock that kernels could be timed by (the feature timestamp-query)")
        self._device, self._period = device, timestamp_period(device.device) * 1e-9
        self._queries = device.query_set(2 * MOST)
        self._times = device.queries(16 * MOST)

    def once(self, plans: Sequence[Recorded]) -> np.ndarray:
        """Seconds of each of at most MOST plans, float64. Each is a pass: a clock read between dispatches would hold them up."""
        recorder = Recorder(self._device.device)
        recorder.timed(plans, self._queries)
        recorder.resolve(self._queries, 2 * len(plans), self._times)
        recorder.submit()
        ticks = self._device.read(self._times, 0, 16 * len(plans)).view(np.uint64).astype(np.int64).reshape(-1, 2)
        return np.asarray(np.maximum(ticks[:, 1] - ticks[:, 0], 0) * self._period)

    def often(self, plans: Sequence[Recorded], before: Callable[[], None] = lambda: None) -> np.ndarray:
        """The medians of some seconds of runs; `before` is called ahead of each."""
        found: list[np.ndarray] = []
        began = time.perf_counter()
        while len(found) <= ROUNDS or time.perf_counter() - began < SECONDS:
            before()
            found.append(self.once(plans))
        return np.asarray(np.median(np.stack(found[1:]), axis=0))  # the first pages things in

    def kernels(self, timed: dict[str, Timed], before: Callable[[], None]) -> tuple[KernelTime, ...]:
        """Of each name, the slowest first."""
        seconds = self.often([one.recorded for one in timed.values()], before).tolist()
        found = [
            KernelTime(name, len(one.recorded), each, one.nbytes) for (name, one), each in zip(timed.items(), seconds, strict=True)
        ]
        return tuple(sorted(found, key=lambda kernel: -kernel.seconds))

    def copy_rate(self) -> float:
        """Bytes/s, read and written, of a kernel that copies."""
        device = self._device
        size = min(COPY_BYTES, device.largest_buffer) // 256 * 256
        buffers = [device.buffer(size, "a copy") for _ in range(2)]
        try:
            pipeline = device.pipeline(shader("copy"), "copy")
            group = device.bind(pipeline, [Slice(buffer, 0, size) for buffer in buffers])
            seconds = self.often([[(pipeline.handle, group._internal, 1056, 1, 1)]])
        finally:
            for buffer in buffers:
                device.free(buffer)
        return 2 * size / max(float(seconds[0]), 1e-9)

    def close(self) -> None:
        self._device.free(self._times)
        self._queries.destroy()
