"""A driver that records what is launched, over memory of the host: all but the kernels runs without a GPU."""

from __future__ import annotations

import ctypes
import struct
import threading
from typing import Any

from cuda.bindings.driver import CUresult

from lacewing.backends.cuda.device.driver import Driver

ATTRIBUTES = {"COMPUTE_CAPABILITY_MAJOR": 9, "COMPUTE_CAPABILITY_MINOR": 0, "MULTIPROCESSOR_COUNT": 132,
              "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN": 232448, "PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES": 0}  # fmt: skip
MEMORY = 2**34


class RecordingDriver(Driver):
    """`launched`: (kernel, grid, threads, shared, arguments) of each launch, those inside graphs when they are launched."""

    def __init__(self, arch: tuple[int, int] = (9, 0), most_bytes: int = MEMORY) -> None:
        self.arch, self.most_bytes, self.gpus, self.cuda = arch, most_bytes, 1, 13000
        self.launched: list[tuple[Any, ...]] = []
        self.sizes: dict[str, list[int]] = {}  # bytes of the parameters of each kernel
        self.memory_of: dict[int, Any] = {}
        self.others: dict[int, int] = {}  # bytes that other programs have of a GPU
        self.context: Any = None  # that of the calling thread
        self.contexts: list[int] = []  # GPUs whose context was retained and not released
        self._capturing: dict[int, list[tuple[Any, ...]]] = {}  # by streams
        self._streams = 0
        self._here, self._losses = threading.local(), dict[int, str]()

    def count(self) -> int:
        return self.gpus

    def version(self) -> int:
        return self.cuda

    def name(self, index: int) -> str:
        return f"recording GPU {index}"

    def attribute(self, index: int, name: str) -> int:
        major, minor = self.arch
        return {**ATTRIBUTES, "COMPUTE_CAPABILITY_MAJOR": major, "COMPUTE_CAPABILITY_MINOR": minor}[name]

    def total_memory(self, index: int) -> int:
        return self.most_bytes

    def open(self, index: int) -> Any:
        self.contexts.append(index)
        return index

    def release(self, index: int) -> None:
        self.contexts.remove(index)

    def entered(self) -> Any:
        return self.context

    def enter(self, context: Any) -> None:
        self.context = self._here.context = context

    def fail(self, method: str, status: str) -> None:
        """Have all calls of a method fail from now on."""
        setattr(self, method, lambda *_, **__: self._call(method, (getattr(CUresult, status),)))

    def memory(self) -> tuple[int, int]:
        mine = sum(len(each) for each in self.memory_of.values())
        return self.most_bytes - self.others.get(self.context, 0) - mine, self.most_bytes

    def alloc(self, nbytes: int, what: str) -> int:
        if nbytes > self.memory()[0]:
            from lacewing.backends.cuda.device.driver import fault

            raise fault("CUDA_ERROR_OUT_OF_MEMORY", what)
        return self.host_alloc(nbytes)

    def free(self, address: int) -> None:
        del self.memory_of[address]

    def host_alloc(self, nbytes: int) -> int:
        made = ctypes.create_string_buffer(nbytes)
        self.memory_of[ctypes.addressof(made)] = made
        return ctypes.addressof(made)

    def host_free(self, address: int) -> None:
        del self.memory_of[address]

    def to_device(self, to: int, source: int, nbytes: int, stream: Any) -> None:
        self._outside(stream)
        ctypes.memmove(to, source, nbytes)

    to_host = copy = to_device

    def clear(self, to: int, nbytes: int, stream: Any) -> None:
        self._outside(stream)
        ctypes.memset(to, 0, nbytes)

    def stream(self) -> Any:
        self._streams += 1
        return self._streams

    def event(self, timed: bool = False) -> Any:
        return 0

    def close_stream(self, stream: Any) -> None: ...
    def close_event(self, event: Any) -> None: ...
    def record(self, event: Any, stream: Any) -> None: ...
    def wait(self, event: Any) -> None: ...
    def unload(self, module: Any) -> None: ...
    def allow_shared(self, function: Any, nbytes: int) -> None: ...
    def close_graph(self, graph: Any) -> None: ...

    def synchronize(self, stream: Any) -> None:
        self._outside(stream)

    def _outside(self, stream: Any) -> None:
        """What would be captured, or would break a capture off, is an error here."""
        assert stream not in self._capturing, "the stream captures a graph"

    def seconds(self, first: Any, last: Any) -> float:
        return 1e-6

    def load(self, code: bytes, name: str) -> tuple[Any, Any]:
        self.sizes[name] = parameter_sizes(code, name)
        return None, name

    def launch(
        self, function: Any, grid: tuple[int, int, int], threads: int, shared: int, stream: Any, arguments: int, early: bool = False
    ) -> None:
        sizes = self.sizes[function]
        pointers = (ctypes.c_void_p * len(sizes)).from_address(arguments)
        values = tuple(ctypes.string_at(at, size) for at, size in zip(pointers, sizes, strict=True))
        self._capturing.get(stream, self.launched).append((function, grid, threads, shared, values))

    def begin_capture(self, stream: Any) -> None:
        self._outside(stream)
        self._capturing[stream] = []

    def end_capture(self, stream: Any) -> Any:
        return self._capturing.pop(stream)

    def drop_capture(self, stream: Any) -> None:
        del self._capturing[stream]

    def launch_graph(self, graph: Any, stream: Any) -> None:
        self._outside(stream)
        self.launched += graph


def parameter_sizes(code: bytes, name: str) -> list[int]:
    """Bytes of each parameter of a kernel, in their order, from its machine code: an ELF file whose section .nv.info has them."""
    sections, count, names_at = struct.unpack_from("<Q", code, 40)[0], *struct.unpack_from("<HH", code, 60)
    headers = [struct.unpack_from("<IIQQQQ", code, sections + 64 * index) for index in range(count)]
    text = headers[names_at][4]
    found: dict[int, int] = {}
    for header in headers:
        start = text + header[0]
        if code[start : code.index(b"\0", start)].decode() == f".nv.info.{name}":
            at, end = header[4], header[4] + header[5]
            while at < end:
                form, attribute, size = struct.unpack_from("<BBH", code, at)
                if attribute == 0x17:  # EIATTR_KPARAM_INFO: index, ordinal, offset, and above bit 18 the size
                    _, ordinal, _, bits = struct.unpack_from("<IHHI", code, at + 4)
                    found[ordinal] = bits >> 18
                at += 4 + (size if form == 4 else 0)
    return [found[index] for index in range(len(found))]
