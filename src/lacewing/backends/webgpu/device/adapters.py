"""The GPUs of this machine, as wgpu shows them, and which of them suits."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lacewing.backends.base import Candidate, DeviceFacts
from lacewing.backends.webgpu.device.bindings.base import Binding
from lacewing.backends.webgpu.device.bindings.choice import binding_of, shown, wanted_binding
from lacewing.backends.webgpu.device.bindings.native import NATIVE
from lacewing.backends.webgpu.device.device import MINIMUM, Device
from lacewing.backends.webgpu.device.memory import gpu_memories, unified_memory
from lacewing.errors import BackendError, OptionError
from lacewing.options import format_bytes

SHARE = 0.9  # of what a GPU has free may be filled without being asked to; drivers and displays need the rest
UNKNOWN_BYTES = 4 * 2**30  # treated as the memory of a discrete GPU that does not tell
_KINDS = {"DiscreteGPU": "discrete GPU", "IntegratedGPU": "integrated GPU", "CPU": "software"}
_ORDER = ("discrete GPU", "integrated GPU", "unknown GPU", "software")
_INTERFACES = ("Vulkan", "Metal", "D3D12", "OpenGL")  # one GPU may be shown through several; the first is taken
_NATIVE = {"Vulkan": "Vulkan", "Metal": "Metal", "D3D12": "DX12", "OpenGL": "GL", "OpenGLES": "GL"}  # wgpu-native's names
_NO_DRIVER = (
    "wgpu finds no GPU driver: install your GPU's Vulkan driver (Linux: mesa-vulkan-drivers for AMD and Intel, NVIDIA's own "
    "driver with its Vulkan part for NVIDIA), or use `backend='cpu'`"
)
_NOT_FOR_DAWN = (
    "Dawn finds no GPU with a driver that is new enough for it; leave out dawn in LACEWING_WEBGPU, or use `backend='cpu'`"
)
_lock = threading.Lock()


@dataclass(frozen=True)
class Adapter:
    """A GPU with its driver. `memory_bytes`: all that it has, `free_bytes`: what is left of it; None: not known."""

    gpu: Any
    index: int
    kind: str
    memory_bytes: int | None
    free_bytes: int | None

    @property
    def name(self) -> str:
        return str(self.gpu.info["device"] or self.gpu.info["description"] or "unnamed GPU")

    @property
    def interface(self) -> str:
        return str(self.gpu.info["backend_type"])

    @property
    def binding(self) -> Binding:
        return binding_of(self.gpu)

    @property
    def problem(self) -> str | None:
        """Why its limits do not do; None if they do."""
        return too_small(dict(self.gpu.limits))

    def facts(self) -> DeviceFacts:
        features = tuple(sorted(str(feature) for feature in self.gpu.features))
        limits = {str(name): int(value) for name, value in self.gpu.limits.items()}
        through = "" if self.binding is NATIVE else f" through {self.binding.title}"
        return DeviceFacts("webgpu", f"{self.name} ({self.interface}{through})", 1, features, self.memory_bytes, self.kind, limits)


def too_small(limits: dict[str, int]) -> str | None:
    """The first limit that is below what the kernels need, in a sentence."""
    for name, least in MINIMUM.items():
        if limits.get(name, 0) < least:
            return f"its limit {name} is {limits.get(name, 0)}, and the kernels need {least}"
    return None


def adapters() -> list[Adapter]:
    """Every GPU once, the best kind first. WGPU_BACKEND_TYPE and WGPUPY_WGPU_ADAPTER_NAME narrow the list, as for all of wgpu.

    Raises BackendError where there is none.
    """
    with _lock, _silent():
        forced = _NATIVE.get(_forced())
        found = shown([forced] if forced else ["Vulkan", "Metal", "DX12"])  # no OpenGL unless it is asked for
        wanted = os.environ.get("WGPUPY_WGPU_ADAPTER_NAME", "")
        found = _once([each for each in found if wanted in each.summary and _asked_for(each)])
        memories = gpu_memories() if any(each.info["backend_type"] in ("Vulkan", "D3D12") for each in found) else []
    if not found:
        if wanted:
            raise BackendError(f"no GPU's name contains {wanted!r} (WGPUPY_WGPU_ADAPTER_NAME)")
        if _forced():
            raise BackendError(f"no GPU is shown through {_forced()} (WGPU_BACKEND_TYPE)")
        raise BackendError(_NOT_FOR_DAWN if wanted_binding() == "dawn" else _NO_DRIVER)
    made = []
    for index, gpu in enumerate(sorted(found, key=lambda each: _ORDER.index(_kind(each)))):
        place = next((at for at, one in enumerate(memories) if _same(one, gpu.info)), None)
        memory = None if place is None else memories.pop(place)  # of two alike the first is the first
        total, free = (memory.total or None, memory.free) if memory else (None, None)
        if total is None and gpu.info["backend_type"] == "Metal":
            total = unified_memory()
        made.append(Adapter(gpu, index, _kind(gpu), total, free))
    return made


def choose_adapter(wanted: str | int | None = None) -> Adapter:
    """The adapter of that index or name, in part and in any case; None: the first. Raises OptionError, BackendError."""
    found = adapters()
    if wanted is None:
        return found[0]
    text = str(wanted).strip()
    if re.fullmatch(r"\d{1,9}", text):
        if int(text) < len(found):
            return found[int(text)]
    elif text:
        for each in found:
            if text.lower() in f"{each.name} {each.gpu.summary}".lower():
                return each
    there = ", ".join(f"{each.index} {each.name}" for each in found)
    raise OptionError(f"there is no adapter {text!r}; `lacewing backends` shows them: {there}")


def free_memory(device: Device) -> int | None:
    """Bytes that a device could still give; of several GPUs that are alike the least."""
    found = []
    for each in adapters():
        if all(each.gpu.info[name] == device.adapter.info[name] for name in ("vendor_id", "device_id", "backend_type")):
            left = None if each.memory_bytes is None else max(0, each.memory_bytes - device.allocated)
            found.append(each.free_bytes if each.free_bytes is not None else left)
    return min((room for room in found if room is not None), default=None)


def candidates(needed_bytes: int | None = None) -> list[Candidate]:
    """Every adapter, and whether `auto` would take it, for a model that needs so many bytes. Raises BackendError."""
    return [Candidate(each.facts(), *judge(each, needed_bytes), each.index) for each in adapters()]


def judge(adapter: Adapter, needed_bytes: int | None) -> tuple[bool, str]:
    """Whether `auto` takes an adapter, and why."""
    if adapter.kind == "software":
        return False, "a software adapter computes on the CPU, slower than the CPU backend"
    if adapter.kind == "unknown GPU":
        return False, "it does not say whether it is a GPU; `backend='webgpu'` takes it all the same"
    if adapter.problem:
        return False, adapter.problem
    room = adapter.free_bytes if adapter.free_bytes is not None else adapter.memory_bytes
    known = format_bytes(room) if room is not None else f"an unknown amount of memory, treated as {format_bytes(UNKNOWN_BYTES)}"
    usable = int((UNKNOWN_BYTES if room is None else room) * SHARE)
    if needed_bytes is None:
        return True, f"a {adapter.kind}, for models that fit in {SHARE:.0%} of {known}"
    if needed_bytes > usable:
        return False, f"the model takes {format_bytes(needed_bytes)}, more than {SHARE:.0%} of {known}"
    return True, f"the model's {format_bytes(needed_bytes)} fit in {SHARE:.0%} of {known}"


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Mesa's device selection looks for a Wayland display even where there can be none, and says so on standard error.

    With an absolute path it looks for no XDG_RUNTIME_DIR, and finds no display without a word.
    """
    if not sys.platform.startswith("linux") or {"XDG_RUNTIME_DIR", "WAYLAND_DISPLAY"} & set(os.environ):
        yield
        return
    os.environ["WAYLAND_DISPLAY"] = os.devnull
    try:
        yield
    finally:
        os.environ.pop("WAYLAND_DISPLAY", None)


def _forced() -> str:
    """The interface that WGPU_BACKEND_TYPE names, empty for none. Raises BackendError for one that does not exist."""
    forced = os.environ.get("WGPU_BACKEND_TYPE", "").strip()
    if forced and forced not in _NATIVE:
        raise BackendError(f"WGPU_BACKEND_TYPE={forced} is no interface; there are {', '.join(_NATIVE)}")
    return forced


def _kind(gpu: Any) -> str:
    return _KINDS.get(gpu.info["adapter_type"], "unknown GPU")


def _asked_for(gpu: Any) -> bool:
    """WGPU_BACKEND_TYPE, for an instance that was made without it; without either OpenGL is left out."""
    forced, interface = _forced(), str(gpu.info["backend_type"])
    return interface == forced if forced else not interface.startswith("OpenGL")


def _once(found: list[Any]) -> list[Any]:
    """Without the adapters whose GPU is shown through a better interface as well."""

    def rank(gpu: Any) -> int:
        interface = gpu.info["backend_type"]
        return _INTERFACES.index(interface) if interface in _INTERFACES else len(_INTERFACES)

    def twin(one: Any, other: Any) -> bool:
        a, b = one.info, other.info
        return a["vendor_id"] == b["vendor_id"] and (a["device_id"] == b["device_id"] or not a["device_id"] or not b["device_id"])

    return [one for one in found if not any(twin(one, other) and rank(other) < rank(one) for other in found)]


def _same(memory: Any, info: Any) -> bool:
    return bool(memory.vendor_id == info["vendor_id"] and memory.device_id == info["device_id"])
