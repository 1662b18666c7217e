"""An opened GPU: buffers, kernels that are compiled once, launches in one stream."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from lacewing.backends.cuda.device.compiling import machine_code
from lacewing.backends.cuda.device.driver import Driver
from lacewing.backends.cuda.kernels import Kernel, Macros, kernel
from lacewing.errors import BackendError, DeviceLostError, OutOfMemoryError
from lacewing.options import format_bytes

COMPILERS = 8  # threads; NVRTC works without Python's lock
EARLY = 90  # compute capability from which a kernel may start before the one before it has ended
_PLAIN_SHARED = 40 * 1024  # bytes of shared memory that a kernel may have without asking, besides a few of its own


@dataclass(eq=False)
class Buffer:
    """Device memory. `address` 0: it was freed."""

    address: int
    size: int
    label: str


@dataclass(eq=False)
class Function:
    """A kernel on the device."""

    kernel: Kernel
    module: Any
    handle: Any
    early: bool = False
    shared: int = _PLAIN_SHARED  # bytes that its blocks may ask for


Plan = Sequence[tuple[Function, tuple[int, int, int], int, int]]  # kernels, their blocks, arguments, bytes of shared memory


class Pinned:
    """Memory of the host that the device writes to by itself, and the event behind the last write."""

    def __init__(self, device: Device, nbytes: int):
        self._device, self.size = device, nbytes
        device.enter()
        self._address = device.driver.host_alloc(max(nbytes, 16))
        self._event = device.driver.event()
        self.bytes = np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(self._address))

    def fetch(self, address: int, nbytes: int, at: int = 0) -> None:
        """Have bytes from an `address` of the device copied to byte `at` here, behind all that was launched."""
        self._device.driver.to_host(self._address + at, address, nbytes, self._device.stream)

    def send(self, to: Buffer, nbytes: int, offset: int = 0) -> None:
        """Have the first bytes copied to the device, behind all that was launched; `mark` and `wait` before they change."""
        self._device.driver.to_device(to.address + offset, self._address, nbytes, self._device.stream)

    def mark(self) -> None:
        """What was asked for until now is what `wait` waits for."""
        self._device.driver.record(self._event, self._device.stream)

    def wait(self, nbytes: int) -> np.ndarray:
        """uint8, valid until the next `fetch`."""
        self._device.driver.wait(self._event)
        return self.bytes[:nbytes]

    def close(self) -> None:
        """Again, or on a lost device: nothing."""
        self._device.forget(self)
        if self._address:
            self._device.give_back(self._device.driver.host_free, self._address)
            self._device.give_back(self._device.driver.close_event, self._event)
        self._address, self.bytes = 0, np.empty(0, np.uint8)


class Device:
    """A GPU by its number. One stream: everything happens in the order of the calls."""

    def __init__(self, driver: Driver, index: int):
        self.driver, self.index, self.closed = driver, index, False
        self.lock = threading.RLock()  # one compiles at a time
        self._capture_lock = threading.Lock()
        self.name = driver.name(index)
        major, minor = (driver.attribute(index, f"COMPUTE_CAPABILITY_{which}") for which in ("MAJOR", "MINOR"))
        self.arch, self.number = f"{major}{minor}", 10 * major + minor
        self.processors = driver.attribute(index, "MULTIPROCESSOR_COUNT")
        self.most_shared = driver.attribute(index, "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN")
        self._reads_pages = bool(driver.attribute(index, "PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES"))  # as Grace Hopper does
        self._context = driver.open(index)
        self.enter()
        self.stream = driver.stream()
        self._capture_stream = driver.stream()  # in which nothing runs: what other threads ask for meanwhile goes into no graph
        self._compilers: ThreadPoolExecutor | None = None  # while a model is compiled
        self._compiling: dict[tuple[object, ...], Future[bytes]] = {}
        self._functions: dict[tuple[object, ...], Function] = {}  # some hundred forms of 15 KB at most: kept for all models
        self._held: dict[int, tuple[Buffer | Pinned, int]] = {}  # what was made and not freed, with the thread that made it
        self.allocated = 0  # bytes

    @property
    def lost(self) -> bool:
        """Whether no call to it works any more: some call has shown so, or it was closed."""
        return self.closed or self.loss is not None

    @property
    def loss(self) -> str | None:
        """The error that showed so."""
        return self.driver.loss(self._context)

    def enter(self) -> None:
        """Before the calls of a thread. Raises DeviceLostError."""
        if self.lost:
            raise DeviceLostError(self.loss or f"the GPU {self.name} was closed; load the model again")
        self.driver.enter(self._context)

    def give_back(self, call: Callable[..., object], *arguments: object) -> None:
        """A call that frees or ends something: on a device that is lost, or shows so now, there is nothing to free."""
        if not self.lost:
            with suppress(DeviceLostError):
                self.enter()
                call(*arguments)

    def settle(self) -> None:
        """Before things are given back: until everything is done, or the device is lost."""
        self.give_back(self.driver.synchronize, self.stream)

    # memory

    def buffer(self, nbytes: int, label: str) -> Buffer:
        """Raises OutOfMemoryError that names it."""
        self.enter()
        size = max(256, -(-nbytes // 256) * 256)
        address = self.driver.alloc(size, f"{label} ({format_bytes(size)})")
        made = Buffer(address, size, label)
        self._held[id(made)] = made, threading.get_ident()
        self.allocated += size
        return made

    def free(self, buffer: Buffer) -> None:
        """When the work that uses it is done. Again, or on a lost device: nothing."""
        if not self.forget(buffer):
            return
        self.allocated -= buffer.size
        self.give_back(self.driver.free, buffer.address)
        buffer.address = 0

    @property
    def held(self) -> list[Buffer | Pinned]:
        """All memory that was not freed, the host's among it."""
        return [each for each, _ in list(self._held.values())]

    def forget(self, each: Buffer | Pinned) -> bool:
        """It is freed now; whether it was held."""
        return self._held.pop(id(each), None) is not None

    def free_since(self, before: list[Buffer | Pinned]) -> None:
        """Free what this thread has made since `held` was `before`, for work that failed half way."""
        kept, me = {id(each) for each in before}, threading.get_ident()
        for each, maker in list(self._held.values()):
            if id(each) not in kept and maker == me:
                self._free(each)

    def _free(self, each: Buffer | Pinned) -> None:
        if isinstance(each, Pinned):
            each.close()
        else:
            self.free(each)

    def write(self, buffer: Buffer, offset: int, data: np.ndarray) -> None:
        """Behind all that was launched; the array may be used again at once."""
        self.enter()
        data = np.ascontiguousarray(data)
        if offset + data.nbytes > buffer.size:
            raise BackendError(f"{data.nbytes} bytes from {offset} on do not fit in {buffer.label}")
        self.driver.to_device(buffer.address + offset, data.ctypes.data, data.nbytes, self.stream)
        if self._reads_pages:  # the copy may still be under way
            self.driver.synchronize(self.stream)

    def read(self, buffer: Buffer, offset: int, nbytes: int) -> np.ndarray:
        """uint8 (nbytes,), behind all that was launched."""
        self.enter()
        found = np.empty(nbytes, np.uint8)
        if nbytes:
            self.driver.to_host(found.ctypes.data, buffer.address + offset, nbytes, self.stream)
            self.wait()
        return found

    def copy(self, source: Buffer, at: int, to: Buffer, offset: int, nbytes: int) -> None:
        """Within a buffer both parts must not overlap."""
        self.driver.copy(to.address + offset, source.address + at, nbytes, self.stream)

    def clear(self, buffer: Buffer, offset: int) -> None:
        """Zeros from a byte on."""
        if offset < buffer.size:
            self.driver.clear(buffer.address + offset, buffer.size - offset, self.stream)

    def wait(self) -> None:
        """Until everything is done."""
        self.enter()
        self.driver.synchronize(self.stream)

    def pinned(self, nbytes: int) -> Pinned:
        """Memory of the host that the device copies from and to by itself."""
        made = Pinned(self, nbytes)
        self._held[id(made)] = made, threading.get_ident()
        return made

    def free_bytes(self) -> int:
        """What the driver would still give."""
        self.enter()
        return self.driver.memory()[0]

    # kernels

    def prepare(self, name: str, macros: Macros) -> None:
        """Begin to compile a kernel beside what else is done, such as bringing weights here."""
        key = self._key(name, macros)
        if key not in self._functions and key not in self._compiling:
            self._compilers = self._compilers or ThreadPoolExecutor(COMPILERS, "lacewing-cuda")
            self._compiling[key] = self._compilers.submit(machine_code, kernel(name), dict(macros), self.arch)

    def function(self, name: str, macros: Macros) -> Function:
        """The kernel on the device, compiled once. Raises BackendError with the compiler's words."""
        key = self._key(name, macros)
        found = self._functions.get(key)
        if found is None:
            begun = self._compiling.pop(key, None)
            code = begun.result() if begun is not None else machine_code(kernel(name), macros, self.arch)
            self.enter()
            module, handle = self.driver.load(code, name)
            found = self._functions[key] = Function(kernel(name), module, handle, kernel(name).early and self.number >= EARLY)
        return found

    def unprepare(self) -> None:
        """Drop what was begun and will not be asked for, and end the threads."""
        self._compiling.clear()
        if self._compilers is not None:
            self._compilers.shutdown(wait=False, cancel_futures=True)
            self._compilers = None

    @staticmethod
    def _key(name: str, macros: Macros) -> tuple[object, ...]:
        return name, *sorted((key, str(value)) for key, value in macros.items())

    def allow_shared(self, function: Function, nbytes: int) -> None:
        """Raises OutOfMemoryError where a block would need more shared memory than this GPU has."""
        if nbytes > self.most_shared:
            raise OutOfMemoryError(
                f"the kernel {function.kernel.name} needs {format_bytes(nbytes)} of shared memory, and this GPU has "
                f"{format_bytes(self.most_shared)}; use `backend='cpu'`"
            )
        if nbytes > function.shared:
            self.driver.allow_shared(function.handle, nbytes)
            function.shared = nbytes

    def launch_all(self, plan: Plan) -> None:
        """Kernels one after another, behind all that was launched. Raises BackendError, DeviceLostError."""
        self.enter()
        self._launch_in(self.stream, plan)

    def graph(self, plan: Plan) -> Any:
        """The same, to be launched as one by `replay`, until `Driver.close_graph`. Other threads may use the device meanwhile.

        Raises BackendError, DeviceLostError for the first launch that failed; no capture is left open.
        """
        self.enter()
        driver, stream = self.driver, self._capture_stream
        with self._capture_lock:
            driver.begin_capture(stream)
            try:
                self._launch_in(stream, plan)
            except BaseException:
                driver.drop_capture(stream)
                raise
            return driver.end_capture(stream)

    def _launch_in(self, stream: Any, plan: Plan) -> None:
        launch = self.driver.launch
        for function, grid, arguments, shared in plan:
            launch(function.handle, grid, function.kernel.threads, shared, stream, arguments, function.early)

    def replay(self, graph: Any) -> None:
        """Launch a graph behind all that was launched. Raises BackendError, DeviceLostError."""
        self.enter()
        self.driver.launch_graph(graph, self.stream)

    def close(self) -> None:
        """Give everything back; what was made on the device is useless afterwards."""
        self.unprepare()
        for each in self.held:
            self._free(each)
        for function in self._functions.values():
            self.give_back(self.driver.unload, function.module)
        self._functions.clear()
        for stream in (self.stream, self._capture_stream):
            self.give_back(self.driver.close_stream, stream)
        self.give_back(self.driver.release, self.index)
        self.closed = True
