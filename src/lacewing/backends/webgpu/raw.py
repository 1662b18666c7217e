"""wgpu-native's own functions, for what is called for every op of every step.

wgpu-py's classes cost about 10 us a dispatch, its `lib` 0.3 us a call. Handles come from the classes' `_internal`.
Errors of raw calls reach wgpu's uncaptured-error callback, so everything that can fail is made through the classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wgpu.backends.wgpu_native import _api
from wgpu.backends.wgpu_native._ffi import ffi, lib

NULL = ffi.NULL
Recorded = Sequence[tuple[Any, Any, int, int, int]]  # pipeline, bind group, workgroups in x, y, z


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
        self._encoder = lib.wgpuDeviceCreateCommandEncoder(self._device, NULL)

    def dispatches(self, plan: Recorded) -> None:
        """One compute pass. wgpu puts barriers between dispatches that touch the same buffer."""
        compute = lib.wgpuCommandEncoderBeginComputePass(self._encoder, NULL)
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

    def copy(self, source: Any, source_offset: int, target: Any, target_offset: int, size: int) -> None:
        lib.wgpuCommandEncoderCopyBufferToBuffer(
            self._encoder, source._internal, source_offset, target._internal, target_offset, size
        )

    def submit(self) -> int:
        """Hand everything to the device; the number of the submission, to wait for."""
        commands = lib.wgpuCommandEncoderFinish(self._encoder, NULL)
        index = lib.wgpuQueueSubmitForIndex(self._queue, 1, ffi.new("WGPUCommandBuffer[1]", [commands]))
        lib.wgpuCommandBufferRelease(commands)
        lib.wgpuCommandEncoderRelease(self._encoder)
        return int(index)


def write(device: Any, buffer: Any, offset: int, data: Any) -> None:
    """Queue a write of a NumPy array; it lands before the commands of the next submission."""
    lib.wgpuQueueWriteBuffer(device.queue._internal, buffer._internal, offset, ffi.from_buffer(data), data.nbytes)


def wait(device: Any) -> None:
    """Until everything that was submitted is done."""
    lib.wgpuDevicePoll(device._internal, True, NULL)


@ffi.callback("void(WGPUMapAsyncStatus, WGPUStringView, void *, void *)")  # type: ignore[untyped-decorator]
def _mapped(status: int, message: Any, first: Any, second: Any) -> None:
    ffi.cast("int *", first)[0] = status


class Readback:
    """A buffer that the host can map, to read results from."""

    _mode, _range = lib.WGPUMapMode_Read, lib.wgpuBufferGetConstMappedRange

    def __init__(self, device: Any, buffer: Any, size: int):
        self._device, self.buffer, self.size = device, buffer, size
        self._status = ffi.new("int *")
        self._info = ffi.new("WGPUBufferMapCallbackInfo *")
        self._info.mode = lib.WGPUCallbackMode_AllowSpontaneous
        self._info.callback, self._info.userdata1 = _mapped, self._status

    def start(self, size: int) -> None:
        """Ask for the first `size` bytes, after the submission that fills them."""
        self._status[0] = 0
        lib.wgpuBufferMapAsync(self.buffer._internal, self._mode, 0, size, self._info[0])

    def finish(self, index: int | None) -> int:
        """Wait for submission `index`, None: for all; the status of the mapping, 1 for success."""
        wanted = NULL if index is None else ffi.new("WGPUSubmissionIndex *", index)
        while self._status[0] == 0:
            lib.wgpuDevicePoll(self._device._internal, True, wanted)
        return int(self._status[0])

    def bytes(self, size: int) -> Any:
        """The mapped bytes; valid until `release`."""
        return ffi.buffer(self._range(self.buffer._internal, 0, size), size)

    def release(self) -> None:
        lib.wgpuBufferUnmap(self.buffer._internal)


class Filling(Readback):
    """The same the other way: `bytes` are written by the host, and the device's after `release`."""

    _mode, _range = lib.WGPUMapMode_Write, lib.wgpuBufferGetMappedRange
