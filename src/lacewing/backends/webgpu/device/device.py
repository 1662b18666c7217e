"""A GPU opened through a binding: buffers, pipelines, bind groups, and what the device can do."""

from __future__ import annotations

import os
import re
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import wgpu

from lacewing.backends.webgpu.device import raw
from lacewing.backends.webgpu.device.bindings.choice import binding_of
from lacewing.backends.webgpu.device.bindings.native import NATIVE
from lacewing.backends.webgpu.device.faults import Guard, fault, reason_of
from lacewing.backends.webgpu.device.memory import subgroup_sizes
from lacewing.backends.webgpu.device.variant import UNITS, Units, Variant, wanted_variants
from lacewing.backends.webgpu.kernels import shader
from lacewing.errors import BackendError, LacewingError, OptionError, OutOfMemoryError
from lacewing.options import format_bytes

_BINDING = re.compile(r"@group\(0\)\s*@binding\((\d+)\)\s*var<storage,\s*(read|read_write)>")
_WANTED = ("subgroup", "subgroup-matrix", "shader-f16", "timestamp-query", "timestamp-query-inside-passes")
RECENT = 256  # kernels that are kept although no step uses them, for a model that comes back
BINDING_BYTES = 2**31 - 256  # wgpu allows 2^31 - 1 a binding; offsets are multiples of 256
MINIMUM = {  # the least that the kernels need of a device: WebGPU's own defaults, which every GPU of the last ten years has
    "max-storage-buffers-per-shader-stage": 8,
    "max-storage-buffer-binding-size": 2**27,
    "max-compute-invocations-per-workgroup": 256,
    "max-compute-workgroup-size-x": 256,
    "max-compute-workgroup-storage-size": 16384,
    "max-compute-workgroups-per-dimension": 65535,
}


@dataclass(frozen=True)
class Slice:
    """A part of a buffer on the device, in bytes; `offset` is a multiple of 256."""

    buffer: Any
    offset: int
    size: int


class Shown(Protocol):
    """What can be bound: a part of a buffer."""

    @property
    def buffer(self) -> Any: ...

    @property
    def offset(self) -> int: ...

    @property
    def size(self) -> int: ...


@dataclass(frozen=True)
class Pipeline:
    handle: Any  # raw
    layout: Any
    owner: Any  # keeps the handle alive
    bindings: int


class Device:
    """One adapter, opened. `checked`: shaders with run-time checks, for tests (LACEWING_WEBGPU_CHECKS=1)."""

    def __init__(self, adapter: Any, checked: bool | None = None):
        self.adapter, self.binding, wanted = adapter, binding_of(adapter), wanted_variants()
        self.checked = os.environ.get("LACEWING_WEBGPU_CHECKS") == "1" if checked is None else checked
        features = sorted(self.binding.features(adapter).intersection(_WANTED))
        self.lost, self.lock = False, threading.RLock()  # one compiles at a time
        try:
            self.device = self.binding.open(adapter, features, self.checked)
        except Exception as error:  # the library raises RuntimeError and its own kinds
            name = adapter.info["device"]
            raise BackendError(f"the GPU {name} cannot be opened: {reason_of(str(error))}; use `backend='cpu'`") from error
        self.features = frozenset(features)
        self.limits = dict(self.device.limits)
        self._compilers = ThreadPoolExecutor(min(8, os.cpu_count() or 1), "lacewing-wgsl")
        self._compiling: dict[str, Future[Pipeline]] = {}
        self._pipelines: weakref.WeakValueDictionary[str, Pipeline] = weakref.WeakValueDictionary()  # as long as steps hold them
        self._recent: deque[Pipeline] = deque(maxlen=RECENT)
        self._buffers: dict[int, tuple[Any, int]] = {}  # with the thread that made them
        self.allocated = 0  # bytes
        try:
            self.variant = self._variant(wanted)
        except BaseException:
            self.close()
            raise

    def _variant(self, wanted: frozenset[str] | None) -> Variant:
        """The best that the device can do, or what is wanted. Raises OptionError for what it cannot do."""
        asked = wanted is None or bool(wanted & {"subgroups", "units"})
        size, fixed = self._subgroup_size() if asked and "subgroup" in self.features else (0, False)
        half = "shader-f16" in self.features
        units = self._units(size) if fixed and half else None
        if wanted is None:  # Metal packs four products in many instructions, but has fast float16
            return Variant(size > 0, self.adapter.info["backend_type"] != "Metal", size or 32, half, units, fixed)
        for name, there in (("subgroups", size > 0), ("half", half), ("units", units is not None)):
            if name in wanted and not there:
                gpu = self.adapter.info["device"]
                way = (
                    "add dawn, which has them where the GPU does" if name == "units" and self.binding is NATIVE else "leave it out"
                )
                raise OptionError(f"LACEWING_WEBGPU names {name}, which the GPU {gpu} does not have here; {way}")
        units = units if "units" in wanted else None
        return Variant("subgroups" in wanted, "dot" in wanted, size or 32, "half" in wanted, units, fixed)

    def _units(self, lanes: int) -> Units | None:
        """The largest work of a workgroup that its memory and threads allow, where there are matrix units."""
        if "subgroup-matrix" not in self.features or not self.binding.has_units(self.adapter):
            return None
        room = int(self.limits["max-compute-workgroup-storage-size"])
        fits = (each for each in UNITS if each.lanes == lanes and each.nbytes <= room and each.threads <= self.most_threads)
        return next(fits, None)

    def _subgroup_size(self) -> tuple[int, bool]:
        """Threads of a subgroup at least, and whether that is so in every kernel; 0 where it is not known or makes no sense.

        A driver may choose another size for each kernel (Intel's 8 to 32, AMD's 32 or 64), so one that was asked says nothing of
        the next. Apple's own GPUs have 32 always; of others Metal does not tell.
        """
        out = self.buffer(256, "the size of subgroups")
        pipeline = self.pipeline(shader("subgroups"), "subgroups")
        recorder = raw.Recorder(self.device)
        group = self.bind(pipeline, [Slice(out, 0, 256)])
        recorder.dispatches([(pipeline.handle, group._internal, 1, 1, 1)])
        recorder.submit()
        found = self.read(out, 0, 256).view(np.uint32)  # 0 where neighbours are not together
        self.free(out)
        seen, info = int(found[0]), self.adapter.info
        if info["backend_type"] == "Metal":
            least, most = (seen, seen) if "apple" in str(info["device"]).lower() else (0, 0)
        else:
            least, most = subgroup_sizes(info["vendor_id"], info["device_id"])
            least, most = least or seen, most or seen
        sound = (found == seen).all() and least <= seen <= most and 4 <= least <= 64 and least & (least - 1) == 0
        return (least, least == most) if sound else (0, False)

    @property
    def most_threads(self) -> int:
        """Of a workgroup; a power of two, as kernels share their work out."""
        most = min(int(self.limits["max-compute-invocations-per-workgroup"]), int(self.limits["max-compute-workgroup-size-x"]))
        return 1 << (most.bit_length() - 1)

    @property
    def largest_buffer(self) -> int:
        """Bytes that one binding can show."""
        return min(BINDING_BYTES, int(self.limits["max-storage-buffer-binding-size"]), int(self.limits["max-buffer-size"]))

    def buffer(self, size: int, label: str, usage: int | None = None) -> Any:
        """A storage buffer of at least `size` bytes. Raises OutOfMemoryError that names it."""
        usage = wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_DST | wgpu.BufferUsage.COPY_SRC if usage is None else usage
        size = max(256, -(-size // 256) * 256)
        largest = int(self.limits["max-buffer-size"])
        if size > largest:
            raise OutOfMemoryError(
                f"{label} takes {format_bytes(size)}, and this GPU's largest buffer is {format_bytes(largest)}; "
                "use a smaller `context` or `backend='cpu'`"
            )
        with self.guard(f"{label} ({format_bytes(size)})"):
            made = self.device.create_buffer(label=label, size=size, usage=usage)
        self._buffers[id(made)] = made, threading.get_ident()
        self.allocated += size
        return made

    def free(self, buffer: Any) -> None:
        """Give the memory back at once, not when Python collects it. Again, or on a lost device: nothing."""
        if self._buffers.pop(id(buffer), None) is not None:
            self.allocated -= buffer.size
            buffer.destroy()

    @property
    def buffers(self) -> list[Any]:
        """All that were not freed."""
        return [buffer for buffer, _ in list(self._buffers.values())]

    def free_since(self, before: list[Any]) -> None:
        """Free what this thread has made since `buffers` was `before`, for work that failed half way."""
        kept, me = {id(buffer) for buffer in before}, threading.get_ident()
        for buffer, maker in list(self._buffers.values()):
            if id(buffer) not in kept and maker == me:
                self.free(buffer)

    def settle(self) -> None:
        """Let the driver have the memory of buffers that were freed, once no work of the device uses them."""
        if not self.lost:
            raw.wait(self.device)

    def _lose(self) -> None:
        self.lost = True

    @contextmanager
    def guard(self, what: str) -> Iterator[None]:
        """Raises what the library says or raises inside as an error of ours. `what` continues "the GPU refused"."""
        try:
            with Guard(self.binding, what, self._lose):
                yield
        except LacewingError:
            raise
        except Exception as error:
            raise fault(what, str(error), type(error).__name__, self._lose) from error

    def readback(self, size: int) -> raw.Readback:
        usage = wgpu.BufferUsage.MAP_READ | wgpu.BufferUsage.COPY_DST
        return raw.Readback(self.device, self.buffer(size, "results", usage), size, self._lose)

    def query_set(self, count: int) -> Any:
        """Places for times that the device takes."""
        with self.guard("the GPU's clock"):
            return self.device.create_query_set(type="timestamp", count=count)

    def queries(self, size: int) -> Any:
        """A buffer for times that the device takes."""
        return self.buffer(size, "times", wgpu.BufferUsage.QUERY_RESOLVE | wgpu.BufferUsage.COPY_SRC)

    def write(self, buffer: Any, offset: int, data: np.ndarray) -> None:
        """Queue a write of a contiguous array whose size is a multiple of 4 bytes."""
        with Guard(self.binding, "a write", self._lose):  # on a lost device this raises; a raw submission would end the process
            raw.write(self.device, buffer, offset, data)

    def read(self, buffer: Any, offset: int, size: int) -> np.ndarray:
        """uint8 (size,): a copy, after all that was submitted. For tests and rare moments."""
        with self.guard("a read"):
            return np.frombuffer(self.device.queue.read_buffer(buffer, offset, size), np.uint8)

    def wait(self, index: int | None = None) -> None:
        """Until submission `index` is done, None: everything that was submitted."""
        raw.wait(self.device, index)

    def prepare(self, code: str, label: str) -> None:
        """Begin to compile a kernel beside what else is done, such as bringing weights here."""
        if code not in self._pipelines and code not in self._compiling:
            self._compiling[code] = self._compilers.submit(self._compile, code, label)

    def pipeline(self, code: str, label: str) -> Pipeline:
        """The compiled kernel; the same code is compiled once. Raises BackendError with the compiler's words."""
        found = self._pipelines.get(code)
        if found is None:
            begun = self._compiling.pop(code, None)
            found = self._pipelines[code] = begun.result() if begun is not None else self._compile(code, label)
            self._recent.append(found)
        return found

    def unprepare(self) -> None:
        """Drop what was begun and will not be asked for."""
        for begun in self._compiling.values():
            begun.cancel()
        self._compiling.clear()

    def _compile(self, code: str, label: str) -> Pipeline:
        kinds = {int(number): access for number, access in _BINDING.findall(code)}
        entries = [
            {
                "binding": number,
                "visibility": wgpu.ShaderStage.COMPUTE,
                "buffer": {"type": "read-only-storage" if access == "read" else "storage"},
            }
            for number, access in sorted(kinds.items())
        ]
        with self.guard(f"the kernel {label}"):
            module = self.binding.module(self.device, code, label, self.checked)
        with self.guard(f"the kernel {label}"):
            layout = self.device.create_bind_group_layout(entries=entries)
            made = self.device.create_compute_pipeline(
                label=label,
                layout=self.device.create_pipeline_layout(bind_group_layouts=[layout]),
                compute={"module": module, "entry_point": "main"},
            )
        return Pipeline(made._internal, layout, (made, module), len(entries))

    def bind(self, pipeline: Pipeline, slices: Sequence[Shown]) -> Any:
        """A bind group with slice i at binding i."""
        entries = [
            {"binding": number, "resource": {"buffer": part.buffer, "offset": part.offset, "size": part.size}}
            for number, part in enumerate(slices)
        ]
        with self.guard("a bind group"):
            return self.device.create_bind_group(layout=pipeline.layout, entries=entries)

    def close(self) -> None:
        """Give everything back; what was made on the device is useless afterwards."""
        self.unprepare()
        self._compilers.shutdown()
        self._pipelines.clear()
        self._recent.clear()
        self._buffers.clear()
        self.allocated = 0
        self.device.destroy()
