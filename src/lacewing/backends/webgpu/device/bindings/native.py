"""wgpu-native (PyPI's `wgpu`): the binding that is always there, for every GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import wgpu
from wgpu.backends.wgpu_native import _api
from wgpu.backends.wgpu_native._ffi import ffi, lib
from wgpu.backends.wgpu_native.extras import set_instance_extras

from lacewing.backends.webgpu.device.bindings.base import Binding, Mapping, heard

_IDLE = 1000  # times that an idle device is asked for a mapping; it gives it at once, or not at all
_begun = False  # whether wgpu's instance is there, with our extras


def _interrupted(kind: type[BaseException], error: BaseException, trace: TracebackType) -> None:
    """Ctrl-C while the device is waited for is heard in the callback; without its status the wait would never end."""
    given = trace.tb_frame.f_locals
    ffi.cast("int *", given["first"])[0] = given["status"]
    heard(kind, error, trace)


@ffi.callback("void(WGPUMapAsyncStatus, WGPUStringView, void *, void *)", onerror=_interrupted)  # type: ignore[untyped-decorator]
def _mapped(status: int, message: Any, first: Any, second: Any) -> None:
    ffi.cast("int *", first)[0] = status


def _poll(device: Any, block: bool, index: int | None = None) -> bool:
    """Whether the device has nothing left to do; `block`: when submission `index` is done, None: all of them.

    What the header calls four bytes is one of Rust's, and three of anything.
    """
    wanted = ffi.NULL if index is None else ffi.new("WGPUSubmissionIndex *", index)
    return bool(lib.wgpuDevicePoll(device._internal, block, wanted) & 0xFF)


class _NativeMapping(Mapping):
    """The callback leaves the status where C can see it."""

    def __init__(self, device: Any, buffer: Any, mode: int):
        self._device, self._buffer, self._mode, self._idle = device, buffer, mode, 0
        self._status = ffi.new("int *")
        self._info = ffi.new("WGPUBufferMapCallbackInfo *")
        self._info.mode = lib.WGPUCallbackMode_AllowSpontaneous
        self._info.callback, self._info.userdata1 = _mapped, self._status

    @property
    def status(self) -> int:  # type: ignore[override]
        return int(self._status[0])

    def start(self, size: int) -> None:
        self._status[0], self._idle = 0, 0
        lib.wgpuBufferMapAsync(self._buffer._internal, self._mode, 0, size, self._info[0])

    @property
    def ended(self) -> bool:
        return self._status[0] != 0 or self._idle >= _IDLE

    def advance(self, sleep: bool, index: int | None) -> None:
        self._idle += _poll(self._device, sleep, index)


class Native(Binding):
    """See Binding."""

    name, title, ffi, lib = "wgpu", "wgpu-native", ffi, lib

    def adapters(self, interfaces: Sequence[str]) -> list[Any]:
        global _begun
        if not _begun:  # no added checks of indirect dispatches
            with contextlib.suppress(RuntimeError):  # an instance that another library of this process has made will do
                set_instance_extras(backends=list(interfaces), flags=["Empty"])
            _begun = True
        return list(wgpu.gpu.enumerate_adapters_sync())

    def features(self, gpu: Any) -> frozenset[str]:
        return frozenset(str(name) for name in gpu.features)

    def open(self, gpu: Any, features: Sequence[str], checked: bool) -> Any:
        return gpu.request_device_sync(required_features=list(features))

    def module(self, device: Any, code: str, label: str, checked: bool) -> Any:
        if checked:
            return device.create_shader_module(label=label, code=code)
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

    def capture(self) -> None:
        _api.error_handler.capture("lacewing")

    def release(self) -> tuple[str, str] | None:
        found = _api.error_handler.release("lacewing")
        return None if found is None else (str(found[0]), str(found[1]))

    def submit(self, device: Any, queue: Any, commands: Any) -> int:
        return int(lib.wgpuQueueSubmitForIndex(queue, 1, ffi.new("WGPUCommandBuffer[1]", [commands])))

    def wait(self, device: Any, index: int | None) -> None:
        _poll(device, True, index)

    def idle(self, device: Any) -> bool:
        return _poll(device, False)

    def mapping(self, device: Any, buffer: Any, writing: bool) -> Mapping:
        return _NativeMapping(device, buffer, lib.WGPUMapMode_Write if writing else lib.WGPUMapMode_Read)

    def tick_nanoseconds(self, device: Any) -> float:
        return float(lib.wgpuQueueGetTimestampPeriod(device.queue._internal))


NATIVE = Native()
