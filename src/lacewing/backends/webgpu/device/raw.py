"""wgpu-native's own functions, for what is called for every op of every step.

wgpu-py's classes cost about 10 us a dispatch, its `lib` 0.3 us a call. Handles come from the classes' `_internal`.
Errors of raw calls reach wgpu's uncaptured-error callback, so everything that can fail is made through the classes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from wgpu.backends.wgpu_native import _api
from wgpu.backends.wgpu_native._ffi import ffi, lib

from lacewing.errors import DeviceLostError

NULL = ffi.NULL
Recorded = Sequence[tuple[Any, Any, int, int, int]]  # pipeline, bind group, workgroups in x, y, z
LOST = "the GPU was lost while it computed; load the model again, or use `backend='cpu'`"
_MAPPED = 1  # status of a mapping that is there
_EAGER = 3e-4  # seconds for which a wait that is in a hurry asks again and again: to sleep and be woken takes 30 us at least
_IDLE = 1000  # times that an idle device is asked for a mapping; it gives it at once, or not at all


def trusted_module(device: Any, code: str, label: str) -> Any:
    """A shader module without run-time checks of bounds and loops; `code` must have passed the checked way in tests."""
    text, name = code.encode(), label.encode()
    code_bytes, label_bytes = ffi.new("char[]", text), ffi.new("char[]", name)  # must live until the call returns
    source = ffi.new("WGPUShaderSourceWGSL *")
    source.chain.sType = lib.WGPUSType_ShaderSourceWGSL
    source.code.data, source.code.length = code_bytes, len(text)
    description = ffi.new("WGPUShaderModuleDescriptor *")
    description.nextInChain = ffi.cast("WGPUChainedStruct *", source)
    description.label.data, description.label.length = label_bytes, len(name)
    handle = lib.wgpuDeviceCreateShaderModuleTrusted(device._internal, description, 0)
    return _api.GPUShaderModule(label, handle, device)


class Recorder:
    """Commands of one submission: compute passes and copies."""

    def __init__(self, device: Any):
        self._device, self._queue = device._internal, device.queue._internal
        self._encoder, self._commands = lib.wgpuDeviceCreateCommandEncoder(self._device, NULL), NULL

    def dispatches(self, plan: Recorded, description: Any = NULL) -> None:
        """One compute pass. wgpu puts barriers between dispatches that touch the same buffer."""
        compute = lib.wgpuCommandEncoderBeginComputePass(self._encoder, description)
        set_pipeline, set_group = lib.wgpuComputePassEncoderSetPipeline, lib.wgpuComputePassEncoderSetBindGroup
        dispatch, last = lib.wgpuComputePassEncoderDispatchWorkgroups, None
        for pipeline, group, x, y, z in plan:
            if pipeline is not last:
                set_pipeline(compute, pipeline)
                last = pipeline
            set_group(compute, 0, group, 0, NULL)
            dispatch(compute, x, y, z)
        lib.wgpuComputePassEncoderEnd(compute)
        lib.wgpuComputePassEncoderRelease(compute)

    def timed(self, plans: Sequence[Recorded], queries: Any) -> None:
        """A pass for each; the times when it begins and when it ends go to `queries`."""
        for index, plan in enumerate(plans):
            writes = ffi.new("WGPUPassTimestampWrites *")
            writes.querySet = queries._internal
            writes.beginningOfPassWriteIndex, writes.endOfPassWriteIndex = 2 * index, 2 * index + 1
            description = ffi.new("WGPUComputePassDescriptor *")
            description.timestampWrites = writes
            self.dispatches(plan, description)

    def resolve(self, queries: Any, count: int, target: Any) -> None:
        """The first `count` times, uint64 in ticks, into a buffer."""
        lib.wgpuCommandEncoderResolveQuerySet(self._encoder, queries._internal, 0, count, target._internal, 0)

    def copy(self, source: Any, source_offset: int, target: Any, target_offset: int, size: int) -> None:
        lib.wgpuCommandEncoderCopyBufferToBuffer(
            self._encoder, source._internal, source_offset, target._internal, target_offset, size
        )

    def finish(self) -> None:
        """No more will be recorded. This is most of the work of a submission, and can be done long before it."""
        self._commands = lib.wgpuCommandEncoderFinish(self._encoder, NULL)
        lib.wgpuCommandEncoderRelease(self._encoder)
        self._encoder = NULL

    def submit(self) -> int:
        """Hand everything to the device; the number of the submission, to wait for."""
        if self._encoder != NULL:
            self.finish()
        index = lib.wgpuQueueSubmitForIndex(self._queue, 1, ffi.new("WGPUCommandBuffer[1]", [self._commands]))
        self.drop()
        return int(index)

    def drop(self) -> None:
        """What was finished is not needed any more."""
        lib.wgpuCommandBufferRelease(self._commands)
        self._commands = NULL


def write(device: Any, buffer: Any, offset: int, data: Any) -> None:
    """Queue a write of a NumPy array; it lands before the commands of the next submission."""
    lib.wgpuQueueWriteBuffer(device.queue._internal, buffer._internal, offset, ffi.from_buffer(data), data.nbytes)


def poll(device: Any, block: bool, index: Any = NULL) -> bool:
    """Whether the device has nothing left to do; `block`: when submission `index` is done, NULL: all of them.

    What the header calls four bytes is one of Rust's, and three of anything.
    """
    return bool(lib.wgpuDevicePoll(device._internal, block, index) & 0xFF)


def wait(device: Any, index: int | None = None) -> None:
    """Until submission `index` is done, None: everything that was submitted."""
    poll(device, True, NULL if index is None else ffi.new("WGPUSubmissionIndex *", index))


def timestamp_period(device: Any) -> float:
    """Nanoseconds of a tick of the device's clock."""
    return float(lib.wgpuQueueGetTimestampPeriod(device.queue._internal))


_interrupts: list[BaseException] = []  # raised in a callback, from which nothing can be raised


def _interrupted(kind: type[BaseException], error: BaseException, trace: TracebackType) -> None:
    """Ctrl-C while the device is waited for is heard in the callback; without its status the wait would never end."""
    given = trace.tb_frame.f_locals
    ffi.cast("int *", given["first"])[0] = given["status"]
    _interrupts.append(error)


@ffi.callback("void(WGPUMapAsyncStatus, WGPUStringView, void *, void *)", onerror=_interrupted)  # type: ignore[untyped-decorator]
def _mapped(status: int, message: Any, first: Any, second: Any) -> None:
    ffi.cast("int *", first)[0] = status


class Readback:
    """A buffer that the host can map, to read results from. `on_loss` is called when the device turns out to be gone.

    A submission that uses a mapped buffer ends the process. So whatever a caller that was interrupted has left mapped is given
    back before the next results are asked for.
    """

    _mode, _range = lib.WGPUMapMode_Read, lib.wgpuBufferGetConstMappedRange

    def __init__(self, device: Any, buffer: Any, size: int, on_loss: Callable[[], None] = lambda: None):
        self._device, self.buffer, self.size, self._on_loss = device, buffer, size, on_loss
        self._status, self._asked = ffi.new("int *"), False
        self._info = ffi.new("WGPUBufferMapCallbackInfo *")
        self._info.mode = lib.WGPUCallbackMode_AllowSpontaneous
        self._info.callback, self._info.userdata1 = _mapped, self._status

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
        if self.finish(index, eager) != _MAPPED:
            self._on_loss()
            raise DeviceLostError(LOST)
        return self.bytes(size)

    def start(self, size: int) -> None:
        """Ask for the first `size` bytes, after the submission that fills them."""
        self._status[0], self._asked = 0, True
        lib.wgpuBufferMapAsync(self.buffer._internal, self._mode, 0, size, self._info[0])

    def finish(self, index: int | None, eager: bool = False) -> int:
        """Wait for submission `index`, None: for all; the status of the mapping, 1 for success, 0 if there will be none.

        `eager`: without sleeping at first, which takes a core.
        """
        wanted, idle = NULL if index is None else ffi.new("WGPUSubmissionIndex *", index), 0
        patience = time.perf_counter() + _EAGER if eager else 0.0
        while self._status[0] == 0 and idle < _IDLE:
            idle += poll(self._device, time.perf_counter() >= patience, wanted)
        if _interrupts and threading.current_thread() is threading.main_thread():
            raise _interrupts.pop()
        return int(self._status[0])

    def bytes(self, size: int) -> Any:
        """The mapped bytes; valid until `release`."""
        return ffi.buffer(self._range(self.buffer._internal, 0, size), size)

    def release(self) -> None:
        """The device's again; one that was asked for and not waited for is waited for. Without `start`: nothing."""
        if self._asked:
            self.finish(None)
            if self._status[0] == _MAPPED:
                lib.wgpuBufferUnmap(self.buffer._internal)
            self._asked = False


class Filling(Readback):
    """The same the other way: `bytes` are written by the host, and the device's after `release`."""

    _mode, _range = lib.WGPUMapMode_Write, lib.wgpuBufferGetMappedRange
