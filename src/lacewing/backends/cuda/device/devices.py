"""The NVIDIA GPUs of this machine, and which of them suits."""

from __future__ import annotations

import re
import threading
import weakref
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

from lacewing.backends.base import Candidate, DeviceFacts, NoDeviceError
from lacewing.backends.cuda.device import hardware
from lacewing.backends.cuda.device.compiling import supported, version
from lacewing.backends.cuda.device.device import Device
from lacewing.backends.cuda.device.driver import Driver
from lacewing.errors import BackendError, DeviceLostError, LacewingError, OptionError, first_line
from lacewing.options import format_bytes

SHARE = 0.9  # of what a GPU has free may be filled without being asked to; displays and other programs need the rest
LEAST_DRIVER = 13000  # CUDA that the driver must run: machine code of NVRTC 13
LEAST_ARCH = 75
UPDATE = "update NVIDIA's driver to R580 or newer"
NO_DRIVER = (
    "install NVIDIA's driver R580 or newer; a container must be given its libraries too (NVIDIA_DRIVER_CAPABILITIES=compute)"
)
_lock = threading.Lock()
_driver: list[Driver] = []
_devices: dict[int, Device] = {}


@dataclass(frozen=True)
class Gpu:
    """A GPU of the driver's list."""

    index: int
    name: str
    arch: int
    memory_bytes: int
    driver_version: int

    @cached_property
    def free_bytes(self) -> int:
        """What the driver would still give, asked once. Raises BackendError, OutOfMemoryError where it gives no context.

        The context that it takes to ask lives as long as this object: a device that is opened next does not make it again.
        """
        cuda = driver()
        context = cuda.open(self.index)
        weakref.finalize(self, _release, cuda, self.index).atexit = False
        before = cuda.entered()
        cuda.enter(context)
        try:
            return cuda.memory()[0]
        finally:
            cuda.enter(before)

    def facts(self) -> DeviceFacts:
        features = (f"sm_{self.arch}", _cuda(self.driver_version), version())
        return DeviceFacts("cuda", self.name, 1, features, self.memory_bytes, "discrete GPU", {"compute_capability": self.arch})

    @property
    def problem(self) -> str | None:
        """Why it cannot be used; None if it can."""
        if self.driver_version < LEAST_DRIVER:
            return f"its driver runs {_cuda(self.driver_version)}, and {_cuda(LEAST_DRIVER)} is needed; {UPDATE}"
        if self.arch < LEAST_ARCH:
            return f"its compute capability is {self.arch / 10}, and the kernels need {LEAST_ARCH / 10}"
        if str(self.arch) not in supported():
            return f"{version()} knows no compute capability {self.arch / 10}; install a newer nvidia-cuda-nvrtc"
        return None


def _release(cuda: Driver, index: int) -> None:
    with suppress(DeviceLostError):  # of a lost GPU there is nothing to give back
        cuda.release(index)


def _cuda(number: int) -> str:
    """13000 as CUDA 13.0."""
    return f"CUDA {number // 1000}.{number % 1000 // 10}"


def driver() -> Driver:
    """NVIDIA's driver, asked for once. Raises NoDeviceError where there is none, BackendError where it does not work."""
    with _lock:
        if not _driver:
            try:
                _driver.append(Driver())
            except BackendError as error:
                if "NO_DEVICE" in str(error):
                    raise NoDeviceError("NVIDIA's driver shows no GPU") from error
                raise
            except (ImportError, OSError, RuntimeError) as error:  # the last where the driver's library is missing
                problem = f"NVIDIA's driver cannot be loaded ({first_line(error)})"
                if not hardware.hardware():
                    raise NoDeviceError(f"this machine has no NVIDIA GPU: {problem}") from error
                raise BackendError(f"{problem}; {NO_DRIVER}") from error
        return _driver[0]


def gpus() -> list[Gpu]:
    """Every GPU that the driver shows. Raises NoDeviceError for none, BackendError."""
    cuda = driver()
    found = []
    for index in range(cuda.count()):
        major, minor = (cuda.attribute(index, f"COMPUTE_CAPABILITY_{which}") for which in ("MAJOR", "MINOR"))
        found.append(Gpu(index, cuda.name(index), 10 * major + minor, cuda.total_memory(index), cuda.version()))
    if not found:
        raise NoDeviceError("NVIDIA's driver shows no GPU")
    return found


def choose_gpu(wanted: str | int | None = None) -> Gpu:
    """The GPU of that index or name, in part and in any case; None: the first. Raises OptionError, BackendError."""
    found = gpus()
    if wanted is None:
        return found[0]
    text = str(wanted).strip()
    if re.fullmatch(r"\d{1,9}", text):
        if int(text) < len(found):
            return found[int(text)]
    elif text:
        for each in found:
            if text.lower() in each.name.lower():
                return each
    there = ", ".join(f"{each.index} {each.name}" for each in found)
    unknown = "" if text.isdecimal() else ", which is neither an index nor part of a name"
    raise OptionError(f"there is no NVIDIA GPU {text!r}{unknown}; `lacewing backends` shows them: {there}")


def judge(gpu: Gpu, needed_bytes: int | None) -> tuple[bool, str]:
    """Whether `auto` takes a GPU, and why."""
    opened = _devices.get(gpu.index)
    if problem := gpu.problem or (opened.loss if opened is not None else None):
        return False, problem
    try:
        room = gpu.free_bytes
    except LacewingError as error:  # such as one that another process has for itself alone
        return False, str(error)
    if needed_bytes is None:
        return True, f"an NVIDIA GPU, for models that fit in {SHARE:.0%} of {format_bytes(room)}"
    if needed_bytes > int(room * SHARE):
        return False, f"the model takes {format_bytes(needed_bytes)}, more than {SHARE:.0%} of {format_bytes(room)}"
    return True, f"the model's {format_bytes(needed_bytes)} fit in {SHARE:.0%} of {format_bytes(room)}"


def candidates(needed_bytes: int | None = None) -> list[Candidate]:
    """Every GPU, and whether `auto` would take it, for a model that needs so many bytes. Raises BackendError."""
    return [Candidate(each.facts(), *judge(each, needed_bytes), each.index) for each in gpus()]


def shared(gpu: Gpu) -> Device:
    """The device of a GPU, opened once for all models. Raises BackendError, and DeviceLostError for one that was lost.

    A lost one is not opened anew: CUDA's documentation says that the process must end, and its context may be other libraries' too.
    """
    if gpu.problem:
        raise BackendError(f"the GPU {gpu.name} cannot be used: {gpu.problem}; use `backend='cpu'`")
    cuda = driver()
    with _lock:
        if gpu.index not in _devices or _devices[gpu.index].closed:
            _devices[gpu.index] = Device(cuda, gpu.index)
        _devices[gpu.index].enter()
        return _devices[gpu.index]
