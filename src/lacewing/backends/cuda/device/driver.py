"""NVIDIA's driver through cuda-bindings: the few calls that a device is made of, errors as ours.

Addresses and handles are plain integers or cuda-bindings' own objects; nobody else looks into them. Tests put a driver that records
in the place of this one.
"""

from __future__ import annotations

import threading
from typing import Any

from lacewing.errors import BackendError, DeviceLostError, OutOfMemoryError

LOST = (
    "the GPU was lost ({reason}): a kernel failed, or the driver or the hardware did; CUDA works again only in a new process: "
    "end this program and start it again, or use `backend='cpu'`"
)
# Errors after which no call of this process to the device succeeds: of most of them CUDA's documentation says so.
FATAL = {
    "CUDA_ERROR_ILLEGAL_ADDRESS", "CUDA_ERROR_LAUNCH_FAILED", "CUDA_ERROR_LAUNCH_TIMEOUT", "CUDA_ERROR_MISALIGNED_ADDRESS",
    "CUDA_ERROR_ILLEGAL_INSTRUCTION", "CUDA_ERROR_INVALID_PC", "CUDA_ERROR_INVALID_ADDRESS_SPACE", "CUDA_ERROR_CONTAINED",
    "CUDA_ERROR_HARDWARE_STACK_ERROR", "CUDA_ERROR_TENSOR_MEMORY_LEAK", "CUDA_ERROR_EXTERNAL_DEVICE",
    "CUDA_ERROR_MPS_CLIENT_TERMINATED", "CUDA_ERROR_ECC_UNCORRECTABLE", "CUDA_ERROR_NVLINK_UNCORRECTABLE",
    "CUDA_ERROR_ASSERT", "CUDA_ERROR_CONTEXT_IS_DESTROYED", "CUDA_ERROR_DEINITIALIZED", "CUDA_ERROR_UNKNOWN",
}  # fmt: skip


def fault(status: Any, what: str) -> BackendError | OutOfMemoryError:
    """The error of a call that failed. `what` continues "the GPU refused"."""
    name = str(getattr(status, "name", status))
    if name == "CUDA_ERROR_OUT_OF_MEMORY":
        return OutOfMemoryError(f"the GPU has no memory left for {what}; use a smaller `context` or quant, or `backend='cpu'`")
    if name in FATAL:
        return DeviceLostError(LOST.format(reason=name))
    return BackendError(f"the GPU refused {what}: {name}; `backend='cpu'` works without it")


class Driver:
    """The driver's calls. Raises BackendError, OutOfMemoryError, DeviceLostError."""

    def __init__(self) -> None:
        from cuda.bindings import driver

        self._cu: Any = driver
        self._here, self._losses = threading.local(), dict[int, str]()
        self._capture = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("the driver", driver.cuInit(0))
        self._early = driver.CUlaunchAttribute()
        self._early.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
        self._early.value.programmaticStreamSerializationAllowed = 1

    def _call(self, what: str, result: tuple[Any, ...], entered: bool = True) -> Any:
        """`entered`: the call was to the device that this thread has entered."""
        status, *values = result
        if int(status):
            error = fault(status, what)
            context = getattr(self._here, "context", None)
            if isinstance(error, DeviceLostError) and entered and context is not None:
                self._losses.setdefault(int(context), str(error))
            raise error
        return values[0] if len(values) == 1 else tuple(values)

    def loss(self, context: Any) -> str | None:
        """The message of the first error that showed the loss of a context; None: it works."""
        return self._losses.get(int(context)) if self._losses else None

    # devices

    def count(self) -> int:
        return int(self._call("the list of devices", self._cu.cuDeviceGetCount()))

    def version(self) -> int:
        """Of CUDA, the newest that the driver runs: 13000 for 13.0."""
        return int(self._call("its version", self._cu.cuDriverGetVersion()))

    def name(self, index: int) -> str:
        return bytes(self._call("its name", self._cu.cuDeviceGetName(256, self._device(index)))).split(b"\0")[0].decode()

    def attribute(self, index: int, name: str) -> int:
        which = getattr(self._cu.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
        return int(self._call("an attribute", self._cu.cuDeviceGetAttribute(which, self._device(index))))

    def total_memory(self, index: int) -> int:
        return int(self._call("its memory", self._cu.cuDeviceTotalMem(self._device(index))))

    def _device(self, index: int) -> Any:
        return self._call("a device", self._cu.cuDeviceGet(index))

    def open(self, index: int) -> Any:
        """The context that all libraries of this process share."""
        return self._call("a context", self._cu.cuDevicePrimaryCtxRetain(self._device(index)), False)

    def release(self, index: int) -> None:
        self._call("the end of a context", self._cu.cuDevicePrimaryCtxRelease(self._device(index)), False)

    def enter(self, context: Any) -> None:
        """Calls of this thread are to this device from now on."""
        self._call("a context", self._cu.cuCtxSetCurrent(context))
        self._here.context = context

    def entered(self) -> Any:
        """The context of this thread's calls, for `enter`; it may be none, or another library's."""
        return self._call("a context", self._cu.cuCtxGetCurrent())

    # memory

    def memory(self) -> tuple[int, int]:
        """Bytes that are free, and all."""
        free, total = self._call("its memory", self._cu.cuMemGetInfo())
        return int(free), int(total)

    def alloc(self, nbytes: int, what: str) -> int:
        return int(self._call(what, self._cu.cuMemAlloc(nbytes)))

    def free(self, address: int) -> None:
        self._call("the end of a buffer", self._cu.cuMemFree(address))

    def host_alloc(self, nbytes: int) -> int:
        """Memory of the host that the device copies from and to by itself."""
        return int(self._call("pinned memory", self._cu.cuMemHostAlloc(nbytes, 0)))

    def host_free(self, address: int) -> None:
        self._call("the end of pinned memory", self._cu.cuMemFreeHost(address))

    def to_device(self, to: int, source: int, nbytes: int, stream: Any) -> None:
        """From pageable memory the bytes are taken before this returns, unless the device reads the host's pages by itself."""
        self._call("a write", self._cu.cuMemcpyHtoDAsync(to, source, nbytes, stream))

    def to_host(self, to: int, source: int, nbytes: int, stream: Any) -> None:
        self._call("a read", self._cu.cuMemcpyDtoHAsync(to, source, nbytes, stream))

    def copy(self, to: int, source: int, nbytes: int, stream: Any) -> None:
        self._call("a copy", self._cu.cuMemcpyDtoDAsync(to, source, nbytes, stream))

    def clear(self, to: int, nbytes: int, stream: Any) -> None:
        """Zeros; whole words."""
        self._call("a fill", self._cu.cuMemsetD32Async(to, 0, nbytes // 4, stream))

    # order

    def stream(self) -> Any:
        return self._call("a stream", self._cu.cuStreamCreate(1))  # CU_STREAM_NON_BLOCKING

    def close_stream(self, stream: Any) -> None:
        self._call("the end of a stream", self._cu.cuStreamDestroy(stream))

    def event(self, timed: bool = False) -> Any:
        return self._call("an event", self._cu.cuEventCreate(0 if timed else 2))  # CU_EVENT_DISABLE_TIMING

    def close_event(self, event: Any) -> None:
        self._call("the end of an event", self._cu.cuEventDestroy(event))

    def record(self, event: Any, stream: Any) -> None:
        self._call("an event", self._cu.cuEventRecord(event, stream))

    def wait(self, event: Any) -> None:
        self._call("work that was under way", self._cu.cuEventSynchronize(event))

    def seconds(self, first: Any, last: Any) -> float:
        return float(self._call("a time", self._cu.cuEventElapsedTime(first, last))) / 1000

    def synchronize(self, stream: Any) -> None:
        self._call("work that was under way", self._cu.cuStreamSynchronize(stream))

    # kernels

    def load(self, code: bytes, name: str) -> tuple[Any, Any]:
        """A module and the function of that name in it."""
        module = self._call(f"the kernel {name}", self._cu.cuModuleLoadData(code))
        return module, self._call(f"the kernel {name}", self._cu.cuModuleGetFunction(module, name.encode()))

    def unload(self, module: Any) -> None:
        self._call("the end of a kernel", self._cu.cuModuleUnload(module))

    def allow_shared(self, function: Any, nbytes: int) -> None:
        """Dynamic shared memory beyond 48 KiB."""
        which = self._cu.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        self._call("shared memory", self._cu.cuFuncSetAttribute(function, which, nbytes))

    def launch(
        self, function: Any, grid: tuple[int, int, int], threads: int, shared: int, stream: Any, arguments: int, early: bool = False
    ) -> None:
        """`arguments`: address of an array of pointers to them. `early`: it may start before the kernel before it has ended."""
        if not early:
            self._call("a kernel", self._cu.cuLaunchKernel(function, *grid, threads, 1, 1, shared, stream, arguments, 0))
            return
        config = self._cu.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = grid
        config.blockDimX, config.blockDimY, config.blockDimZ = threads, 1, 1
        config.sharedMemBytes, config.hStream = shared, stream
        config.attrs, config.numAttrs = [self._early], 1
        self._call("a kernel", self._cu.cuLaunchKernelEx(config, function, arguments, 0))

    # graphs

    def begin_capture(self, stream: Any) -> None:
        self._call("a graph", self._cu.cuStreamBeginCapture(stream, self._capture))

    def end_capture(self, stream: Any) -> Any:
        """What was launched meanwhile, ready to be launched as one."""
        graph = self._call("a graph", self._cu.cuStreamEndCapture(stream))
        try:
            return self._call("a graph", self._cu.cuGraphInstantiate(graph, 0))
        finally:
            self._cu.cuGraphDestroy(graph)

    def drop_capture(self, stream: Any) -> None:
        """End one that failed, whatever the driver says to it."""
        status, *graph = self._cu.cuStreamEndCapture(stream)
        if not int(status):
            self._cu.cuGraphDestroy(*graph)

    def launch_graph(self, graph: Any, stream: Any) -> None:
        self._call("a graph", self._cu.cuGraphLaunch(graph, stream))

    def close_graph(self, graph: Any) -> None:
        self._call("the end of a graph", self._cu.cuGraphExecDestroy(graph))
