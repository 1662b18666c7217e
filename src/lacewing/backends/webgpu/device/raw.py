"""The library's own functions, for what is called for every op of every step.

wgpu-py's classes cost about 10 us a dispatch, its `lib` 0.3 us a call. Handles come from the classes' `_internal`.
Errors of raw calls reach the library's uncaptured-error callback, so everything that can fail is made through the classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lacewing.backends.webgpu.device.bindings.base import MAPPED, raise_interrupts
from lacewing.backends.webgpu.device.bindings.choice import binding_of
from lacewing.errors import DeviceLostError

Recorded = Sequence[tuple[Any, Any, int, int, int]]  # pipeline, bind group, workgroups in x, y, z
LOST = "the GPU was lost while it computed; load the model again, or use `backend='cpu'`"
_EAGER = 3e-4  # seconds for which a wait that is in a hurry asks again and again: to sleep and be woken takes 30 us at least


class Recorder:
    """Commands of one submission: compute passes and copies."""

    def __init__(self, device: Any):
        self._device, self._binding = device, binding_of(device)
        self._lib, self._ffi = self._binding.lib, self._binding.ffi
        self._queue, self._commands = device.queue._internal, self._ffi.NULL
        self._encoder = self._binding.encoder(device)

    def dispatches(self, plan: Recorded, description: Any = None) -> None:
        """One compute pass. The library puts barriers between dispatches that touch the same buffer."""
        lib, null = self._lib, self._ffi.NULL
        compute = lib.wgpuCommandEncoderBeginComputePass(self._encoder, null if description is None else description)
        set_pipeline, set_group = lib.wgpuComputePassEncoderSetPipeline, lib.wgpuComputePassEncoderSetBindGroup
        dispatch, last = lib.wgpuComputePassEncoderDispatchWorkgroups, None
        for pipeline, group, x, y, z in plan:
            if pipeline is not last:
                set_pipeline(compute, pipeline)
                last = pipeline
            set_group(compute, 0, group, 0, null)
            dispatch(compute, x, y, z)
        lib.wgpuComputePassEncoderEnd(compute)
        lib.wgpuComputePassEncoderRelease(compute)

    def timed(self, plans: Sequence[Recorded], queries: Any) -> None:
        """A pass for each; the times when it begins and when it ends go to `queries`."""
        for index, plan in enumerate(plans):
            writes = self._ffi.new("WGPUPassTimestampWrites *")
            writes.querySet = queries._internal
            writes.beginningOfPassWriteIndex, writes.endOfPassWriteIndex = 2 * index, 2 * index + 1
            description = self._ffi.new("WGPUComputePassDescriptor *")
            description.timestampWrites = writes
            self.dispatches(plan, description)

    def resolve(self, queries: Any, count: int, target: Any) -> None:
        """The first `count` times, uint64 in ticks, into a buffer."""
        self._lib.wgpuCommandEncoderResolveQuerySet(self._encoder, queries._internal, 0, count, target._internal, 0)

    def copy(self, source: Any, source_offset: int, target: Any, target_offset: int, size: int) -> None:
        self._lib.wgpuCommandEncoderCopyBufferToBuffer(
            self._encoder, source._internal, source_offset, target._internal, target_offset, size
        )

    def finish(self) -> None:
        """No more will be recorded. This is most of the work of a submission, and can be done long before it."""
        self._commands = self._binding.finish(self._encoder)
        self._lib.wgpuCommandEncoderRelease(self._encoder)
        self._encoder = self._ffi.NULL

    def submit(self) -> int:
        """Hand everything to the device; the number of the submission, to wait for."""
        if self._encoder != self._ffi.NULL:
            self.finish()
        index = self._binding.submit(self._device, self._queue, self._commands)
        self.drop()
        return index

    def drop(self) -> None:
        """What was finished is not needed any more."""
        self._lib.wgpuCommandBufferRelease(self._commands)
        self._commands = self._ffi.NULL


def write(device: Any, buffer: Any, offset: int, data: Any) -> None:
    """Queue a write of a NumPy array; it lands before the commands of the next submission."""
    binding = binding_of(device)
    source = binding.ffi.from_buffer(data)
    binding.lib.wgpuQueueWriteBuffer(device.queue._internal, buffer._internal, offset, source, data.nbytes)


def wait(device: Any, index: int | None = None) -> None:
    """Until submission `index` is done, None: everything that was submitted."""
    binding_of(device).wait(device, index)


def timestamp_period(device: Any) -> float:
    """Nanoseconds of a tick of the device's clock."""
    return binding_of(device).tick_nanoseconds(device)


class Readback:
    """A buffer that the host can map, to read results from. `on_loss` is called when the device turns out to be gone.

    A submission that uses a mapped buffer ends the process. So whatever a caller that was interrupted has left mapped is given
    back before the next results are asked for.
    """

    _writing = False

    def __init__(self, device: Any, buffer: Any, size: int, on_loss: Callable[[], None] = lambda: None):
        self.buffer, self.size, self._on_loss, self._asked = buffer, size, on_loss, False
        self._binding = binding_of(device)
        self._mapping = self._binding.mapping(device, buffer, self._writing)

    def copy(self, recorder: Recorder, source: Any, offset: int, size: int, at: int = 0) -> None:
        """Record that `size` bytes of `source` come here, behind the first `at`."""
        self.release()
        recorder.copy(source, offset, self.buffer, at, size)

    @contextmanager
    def mapped(self, size: int, index: int) -> Iterator[Any]:
        """The first `size` bytes as submission `index` leaves them, valid within. Raises DeviceLostError."""
        try:
            self.start(size)
            yield self.wait(index, size)
        finally:
            self.release()

    def wait(self, index: int, size: int, eager: bool = False) -> Any:
        """After `start`: the first `size` bytes, valid until `release`. Raises DeviceLostError where the device is lost."""
        if self.finish(index, eager) != MAPPED:
            self._on_loss()
            raise DeviceLostError(LOST)
        return self.bytes(size)

    def start(self, size: int) -> None:
        """Ask for the first `size` bytes, after the submission that fills them."""
        self._asked = True
        self._mapping.start(size)

    def finish(self, index: int | None, eager: bool = False) -> int:
        """Wait for submission `index`, None: for all; the status of the mapping, 1 for success, 0 if there will be none.

        `eager`: without sleeping at first, which takes a core.
        """
        mapping, patience = self._mapping, time.perf_counter() + _EAGER if eager else 0.0
        while not mapping.ended:
            mapping.advance(time.perf_counter() >= patience, index)
        raise_interrupts()
        return mapping.status

    def bytes(self, size: int) -> Any:
        """The mapped bytes; valid until `release`."""
        lib = self._binding.lib
        get = lib.wgpuBufferGetMappedRange if self._writing else lib.wgpuBufferGetConstMappedRange
        return self._binding.ffi.buffer(get(self.buffer._internal, 0, size), size)

    def release(self) -> None:
        """The device's again; one that was asked for and not waited for is waited for. Without `start`: nothing."""
        if self._asked:
            self.finish(None)
            if self._mapping.status == MAPPED:
                self._binding.lib.wgpuBufferUnmap(self.buffer._internal)
            self._asked = False


class Filling(Readback):
    """The same the other way: `bytes` are written by the host, and the device's after `release`."""

    _writing = True
