"""Times of dispatches by the device's own clock, and what they say of the kernels of a model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lacewing.backends.base import KernelTime
from lacewing.backends.webgpu.device import Device, Slice
from lacewing.backends.webgpu.raw import Recorded, Recorder, timestamp_period
from lacewing.backends.webgpu.shaders import shader
from lacewing.errors import BackendError

SECONDS, ROUNDS = 0.5, 3  # a GPU that idled takes its time to clock up; at least so many runs are timed
COPY_BYTES = 2**30
_DISPATCHES = 1024  # of a submission; a set of queries has 4096 places at most
_INSIDE = "timestamp-query-inside-passes"


@dataclass(frozen=True)
class Timed:
    """A dispatch, and the bytes of weights that it reads."""

    label: str
    recorded: tuple[Any, Any, int, int, int]
    nbytes: int


class Clock:
    """Raises BackendError for a GPU that has no clock."""

    def __init__(self, device: Device):
        if "timestamp-query" not in device.features:
            raise BackendError("this GPU has no clock that kernels could be timed by (the feature timestamp-query)")
        self._device, self._inside = device, _INSIDE in device.features
        self._period = timestamp_period(device.device) * 1e-9
        self._places = _DISPATCHES + 1 if self._inside else 2 * _DISPATCHES
        self._queries = device.device.create_query_set(type="timestamp", count=self._places)
        self._times = device.queries(8 * self._places)

    def once(self, plan: Recorded) -> np.ndarray:
        """Seconds of each dispatch, float64; they run in one pass where the device can tell the time within, else in one each."""
        found = [self._part(plan[start : start + _DISPATCHES]) for start in range(0, len(plan), _DISPATCHES)]
        return np.concatenate(found) if found else np.empty(0)

    def _part(self, plan: Recorded) -> np.ndarray:
        recorder = Recorder(self._device.device)
        count = len(plan) + 1 if self._inside else 2 * len(plan)
        if self._inside:
            recorder.timed_dispatches(plan, self._queries)
        else:
            recorder.timed_passes(plan, self._queries)
        recorder.resolve(self._queries, count, self._times)
        recorder.submit()
        ticks = self._device.read(self._times, 0, 8 * count).view(np.uint64).astype(np.int64)
        spans = np.diff(ticks) if self._inside else (ticks[1::2] - ticks[::2])
        return np.asarray(np.maximum(spans, 0) * self._period)

    def often(self, plan: Recorded, before: Callable[[], None] = lambda: None) -> np.ndarray:
        """The medians of some seconds of runs; `before` is called ahead of each."""
        found: list[np.ndarray] = []
        began = time.perf_counter()
        while len(found) <= ROUNDS or time.perf_counter() - began < SECONDS:
            before()
            found.append(self.once(plan))
        return np.asarray(np.median(np.stack(found[1:]), axis=0))  # the first pages things in

    def copy_rate(self) -> float:
        """Bytes/s, read and written, of a kernel that copies."""
        device = self._device
        size = min(COPY_BYTES, device.largest_buffer) // 256 * 256
        buffers = [device.buffer(size, "a copy") for _ in range(2)]
        try:
            pipeline = device.pipeline(shader("copy"), "copy")
            group = device.bind(pipeline, [Slice(buffer, 0, size) for buffer in buffers])
            seconds = self.often([(pipeline.handle, group._internal, 1056, 1, 1)])
        finally:
            for buffer in buffers:
                device.free(buffer)
        return 2 * size / max(float(seconds[0]), 1e-9)

    def close(self) -> None:
        self._device.free(self._times)
        self._queries.destroy()


def summed(dispatches: Sequence[Timed], seconds: Iterable[float]) -> tuple[KernelTime, ...]:
    """One for each kernel, the slowest first."""
    found: dict[str, KernelTime] = {}
    for one, each in zip(dispatches, seconds, strict=True):
        so_far = found.get(one.label, KernelTime(one.label, 0, 0.0, 0))
        found[one.label] = KernelTime(one.label, so_far.calls + 1, so_far.seconds + float(each), so_far.nbytes + one.nbytes)
    return tuple(sorted(found.values(), key=lambda kernel: -kernel.seconds))
