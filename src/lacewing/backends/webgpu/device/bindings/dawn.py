"""Google's Dawn (PyPI's `wgpudawn`, the extra `lacewing[dawn]`): the same API, and matrix units where the GPU has them.

Its parts that wgpu-py's API does not have (toggles, all adapters, the instance) are private or extras of version 0.32.0, which
pyproject.toml pins. A call through its classes raises the oldest error of any thread; `capture` keeps those of this one instead.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import wgpudawn
from wgpudawn.backends.dawn import _api, extras
from wgpudawn.backends.dawn._ffi import ffi, lib
from wgpudawn.backends.dawn._helpers import get_wgpu_instance

from lacewing.backends.webgpu.device.bindings.base import MAPPED, Binding, Mapping, heard, raise_interrupts
from lacewing.backends.webgpu.device.faults import fault

UNITS = "chromium-experimental-subgroup-matrix"
_NAMES = {"subgroups": "subgroup", UNITS: "subgroup-matrix"}  # Dawn's, and wgpu-native's or ours
_INTERFACES = {"DX12": "D3D12"}
_ADAPTER_TOGGLES = ("allow_unsafe_apis", "vulkan_enable_f16_on_nvidia", "use_vulkan_memory_model")  # else there are no matrix units
_UNCHECKED = ("disable_robustness", "disable_workgroup_init")
_COARSE = ("timestamp_quantization",)  # times in steps of 100 us, against attacks of pages
_TURN_NANOSECONDS = 50_000_000  # of sleep, then Ctrl-C is heard
_KEPT = 8  # submissions whose end is asked for only when more follow
_LOST = "[Device] is lost"
_begun = False


class _Captured(threading.local):
    """Errors of this thread, the innermost `capture` last; None: none so far."""

    def __init__(self) -> None:
        self.stack: list[tuple[str, str] | None] = []


_captured, _handle = _Captured(), _api.error_handler.handle_error


def _error(kind: str, words: str) -> None:
    if not _captured.stack:
        _handle(kind, words)  # of a call that is not ours
    elif _captured.stack[-1] is None:  # later ones follow from the first
        _captured.stack[-1] = (kind, words)


_api.error_handler.handle_error = _error


@ffi.callback("void(WGPUMapAsyncStatus, WGPUStringView, void *, void *)", onerror=heard)  # type: ignore[untyped-decorator]
def _mapped(status: int, message: Any, first: Any, second: Any) -> None:
    """Dawn calls what it is given without asking whether it is NULL; `_DawnMapping` asks the buffer."""


@ffi.callback("void(WGPUQueueWorkDoneStatus, WGPUStringView, void *, void *)", onerror=heard)  # type: ignore[untyped-decorator]
def _done(status: int, message: Any, first: Any, second: Any) -> None:
    """Likewise."""


_WORK = ffi.new("WGPUQueueWorkDoneCallbackInfo *")
_WORK.mode, _WORK.callback = lib.WGPUCallbackMode_WaitAnyOnly, _done


def _ended(future: int, nanoseconds: int) -> bool:
    """Whether a future has ended within that time."""
    info = ffi.new("WGPUFutureWaitInfo *")
    info.future.id = future
    lib.wgpuInstanceWaitAny(get_wgpu_instance(), 1, info, nanoseconds)
    return bool(info.completed)


@contextlib.contextmanager
def _unless_lost() -> Iterator[None]:
    """Of a lost device every call is an error; the next mapping or write tells of the loss. Others are raised as ours."""
    _captured.stack.append(None)
    try:
        yield
    finally:
        found = _captured.stack.pop()
    if found is not None and _LOST not in found[1]:
        raise fault("recorded work", found[1], found[0])


class _DawnMapping(Mapping):
    """A future of Dawn's: it ends when the last submission that uses the buffer has, or the device is lost."""

    def __init__(self, buffer: Any, mode: int):
        self._buffer, self._mode, self._future, self.status = buffer, mode, 0, 0
        self._info = ffi.new("WGPUBufferMapCallbackInfo *")
        self._info.mode, self._info.callback = lib.WGPUCallbackMode_WaitAnyOnly, _mapped

    def start(self, size: int) -> None:
        self.status = 0
        with _unless_lost():
            self._future = lib.wgpuBufferMapAsync(self._buffer._internal, self._mode, 0, size, self._info[0]).id

    @property
    def ended(self) -> bool:
        return self.status != 0

    def advance(self, sleep: bool, index: int | None) -> None:
        if _ended(self._future, _TURN_NANOSECONDS if sleep else 0):
            there = lib.wgpuBufferGetMapState(self._buffer._internal) == lib.WGPUBufferMapState_Mapped
            self.status = MAPPED if there else lib.WGPUMapAsyncStatus_Aborted


class Dawn(Binding):
    """See Binding. The number of a submission is that of the future of its end."""

    name, title, ffi, lib = "dawn", "Dawn", ffi, lib

    def __init__(self) -> None:
        self._under_way: WeakKeyDictionary[Any, OrderedDict[int, None]] = WeakKeyDictionary()
        self._lock = threading.Lock()  # of what is under way
        self._places: WeakKeyDictionary[Any, int] = WeakKeyDictionary()  # of adapters among all

    def adapters(self, interfaces: Sequence[str]) -> list[Any]:
        global _begun
        if not _begun:
            with contextlib.suppress(RuntimeError):  # an instance that another library has made; perhaps without matrix units
                extras.set_instance_extras(backends=["All"], enable_toggles=_ADAPTER_TOGGLES)
            _begun = True
        wanted = {_INTERFACES.get(name, name) for name in interfaces}
        found = wgpudawn.gpu._enumerate_all_adapters()  # the public way shows one of several GPUs that are alike
        self._places.update((gpu, place) for place, gpu in enumerate(found))
        return [gpu for gpu in found if gpu.info["backend_type"] in wanted]

    def features(self, gpu: Any) -> frozenset[str]:
        return frozenset(_NAMES.get(name, name) for name in map(str, gpu.features))

    def has_units(self, gpu: Any) -> bool:
        if UNITS not in gpu.features:
            return False
        configs, info = ffi.new("WGPUAdapterPropertiesSubgroupMatrixConfigs *"), ffi.new("WGPUAdapterInfo *")
        configs.chain.sType = lib.WGPUSType_AdapterPropertiesSubgroupMatrixConfigs
        info.nextInChain = ffi.cast("WGPUChainedStruct *", configs)
        lib.wgpuAdapterGetInfo(gpu._internal, info)
        shown = [configs.configs[at] for at in range(configs.configCount)]
        found = {(each.componentType, each.resultComponentType, each.M, each.N, each.K) for each in shown}
        lib.wgpuAdapterInfoFreeMembers(info[0])
        lib.wgpuAdapterPropertiesSubgroupMatrixConfigsFreeMembers(configs[0])
        return (lib.WGPUSubgroupMatrixComponentType_F16, lib.WGPUSubgroupMatrixComponentType_F32, 16, 16, 16) in found

    def open(self, gpu: Any, features: Sequence[str], checked: bool) -> Any:
        theirs = {ours: name for name, ours in _NAMES.items()}
        wanted = [theirs.get(name, name) for name in features]
        wanted.append("implicit-device-synchronization")  # kernels are compiled in threads
        fresh = wgpudawn.gpu._enumerate_all_adapters()[self._places[gpu]]  # an adapter gives one device, then no other
        return extras.request_device_sync(
            fresh, required_features=wanted, enable_toggles=() if checked else _UNCHECKED, disable_toggles=_COARSE
        )

    def module(self, device: Any, code: str, label: str, checked: bool) -> Any:
        return device.create_shader_module(label=label, code=dialect(code))

    def capture(self) -> None:
        _captured.stack.append(None)

    def release(self) -> tuple[str, str] | None:
        return _captured.stack.pop()

    def encoder(self, device: Any) -> Any:
        with _unless_lost():
            return super().encoder(device)

    def finish(self, encoder: Any) -> Any:
        with _unless_lost():
            return super().finish(encoder)

    def submit(self, device: Any, queue: Any, commands: Any) -> int:
        with _unless_lost():
            lib.wgpuQueueSubmit(queue, 1, ffi.new("WGPUCommandBuffer[1]", [commands]))
        future = self._end(device)
        with self._lock:
            waiting = self._under_way.setdefault(device, OrderedDict())
            waiting[future] = None
            while len(waiting) > _KEPT and _ended(next(iter(waiting)), 0):
                waiting.popitem(last=False)
        return future

    def wait(self, device: Any, index: int | None) -> None:
        with self._lock:
            waiting = self._under_way.setdefault(device, OrderedDict())
            if index is not None and index not in waiting:
                return  # it has ended
        future = self._end(device) if index is None else index
        while not _ended(future, _TURN_NANOSECONDS):
            raise_interrupts()
        with self._lock:
            waiting.pop(future, None)
        lib.wgpuInstanceProcessEvents(get_wgpu_instance())  # what was freed is given back
        raise_interrupts()

    def idle(self, device: Any) -> bool:
        return _ended(self._end(device), 0)

    @staticmethod
    def _end(device: Any) -> int:
        """The future of the end of everything that was submitted."""
        with _unless_lost():
            return int(lib.wgpuQueueOnSubmittedWorkDone(device.queue._internal, _WORK[0]).id)

    def mapping(self, device: Any, buffer: Any, writing: bool) -> Mapping:
        return _DawnMapping(buffer, lib.WGPUMapMode_Write if writing else lib.WGPUMapMode_Read)

    def tick_nanoseconds(self, device: Any) -> float:
        return 1.0  # Dawn converts the ticks


def dialect(code: str) -> str:
    """WGSL as Dawn and browsers have it: subgroups are enabled by name, and their uniformity is our kernels' business.

    A subgroup reads one expert's number; the compiler cannot see that, since the number is in a buffer that may be written.
    """
    return f"enable subgroups;\ndiagnostic(off, subgroup_uniformity);\n{code}" if "subgroup" in code else code


class _Quiet(logging.Filter):
    """A loss is raised by the next call; the library's shouting about it is left out."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(("The WGPU device was lost", _LOST))


logging.getLogger("wgpudawn").addFilter(_Quiet())
DAWN = Dawn()
