"""How much memory a GPU has, and how large its subgroups are. wgpu does not tell, so the Vulkan loader, which it uses itself, is
asked through ctypes.

Structures and numbers are those of the Vulkan specification, versions 1.1, VK_EXT_memory_budget and VK_EXT_subgroup_size_control.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import sys
from dataclasses import dataclass

import psutil

_DEVICE_LOCAL = 1
_HEAPS = 16
_UNIFIED_SHARE = 2 / 3  # of an Apple machine's memory may be the GPU's, as Metal recommends
_APPLICATION, _INSTANCE, _MEMORY, _BUDGET, _PROPERTIES, _SUBGROUPS = 0, 1, 1000059006, 1000237000, 1000059001, 1000225000


@dataclass(frozen=True)
class GpuMemory:
    """Bytes. `free` is what the driver would still give, where it says so.

    `subgroups`: the least and the most threads of a subgroup that the driver may choose for a kernel; 0: it does not say.
    """

    vendor_id: int
    device_id: int
    total: int
    free: int | None
    subgroups: tuple[int, int] = (0, 0)


class _Application(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int), ("next", ctypes.c_void_p), ("name", ctypes.c_char_p), ("version", ctypes.c_uint32),
                ("engine", ctypes.c_char_p), ("engine_version", ctypes.c_uint32), ("api", ctypes.c_uint32))  # fmt: skip


class _Instance(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int), ("next", ctypes.c_void_p), ("flags", ctypes.c_uint32), ("application", ctypes.c_void_p),
                ("layer_count", ctypes.c_uint32), ("layers", ctypes.c_void_p),
                ("extension_count", ctypes.c_uint32), ("extensions", ctypes.c_void_p))  # fmt: skip


class _Heap(ctypes.Structure):
    _fields_ = (("size", ctypes.c_uint64), ("flags", ctypes.c_uint32))


class _Memory(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int), ("next", ctypes.c_void_p), ("type_count", ctypes.c_uint32),
                ("types", ctypes.c_uint32 * 64), ("heap_count", ctypes.c_uint32), ("heaps", _Heap * _HEAPS))  # fmt: skip


class _Budget(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int), ("next", ctypes.c_void_p),
                ("budget", ctypes.c_uint64 * _HEAPS), ("usage", ctypes.c_uint64 * _HEAPS))  # fmt: skip


class _Subgroups(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int), ("next", ctypes.c_void_p), ("least", ctypes.c_uint32), ("most", ctypes.c_uint32),
                ("in_a_workgroup", ctypes.c_uint32), ("stages", ctypes.c_uint32))  # fmt: skip


class _Properties(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int), ("next", ctypes.c_void_p), ("words", ctypes.c_uint32 * 1024))  # of which 206 are used


def gpu_memories() -> list[GpuMemory]:
    """One for each Vulkan device, in the loader's order; empty where there is no Vulkan."""
    vulkan = _loader()
    if vulkan is None:
        return []
    application = _Application(_APPLICATION, None, b"lacewing", 0, None, 0, 1 << 22 | 1 << 12)
    create = _Instance(_INSTANCE, None, 0, ctypes.cast(ctypes.byref(application), ctypes.c_void_p), 0, None, 0, None)
    instance, count = ctypes.c_void_p(), ctypes.c_uint32()
    if vulkan.vkCreateInstance(ctypes.byref(create), None, ctypes.byref(instance)):
        return []
    try:
        if vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None):
            return []
        devices = (ctypes.c_void_p * count.value)()
        vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), devices)
        return [_memory_of(vulkan, ctypes.c_void_p(device)) for device in devices[: count.value]]
    finally:
        vulkan.vkDestroyInstance(instance, None)


def unified_memory() -> int:
    """What a GPU without memory of its own may take of this machine's, where nothing more exact is known."""
    return int(psutil.virtual_memory().total * _UNIFIED_SHARE)


def _loader() -> ctypes.CDLL | None:
    name = "vulkan-1.dll" if sys.platform == "win32" else ctypes.util.find_library("vulkan") or "libvulkan.so.1"
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


def _memory_of(vulkan: ctypes.CDLL, device: ctypes.c_void_p) -> GpuMemory:
    subgroups = _Subgroups(_SUBGROUPS)
    properties = _Properties(_PROPERTIES, ctypes.cast(ctypes.byref(subgroups), ctypes.c_void_p))
    vulkan.vkGetPhysicalDeviceProperties2(device, ctypes.byref(properties))
    vendor_id, device_id, sizes = properties.words[2], properties.words[3], (subgroups.least, subgroups.most)
    budget = _Budget(_BUDGET)
    memory = _Memory(_MEMORY, ctypes.cast(ctypes.byref(budget), ctypes.c_void_p))
    vulkan.vkGetPhysicalDeviceMemoryProperties2(device, ctypes.byref(memory))
    local = [index for index in range(memory.heap_count) if memory.heaps[index].flags & _DEVICE_LOCAL]
    largest = max(local, key=lambda index: int(memory.heaps[index].size), default=None)  # a small one is a window of it
    if largest is None:
        return GpuMemory(vendor_id, device_id, 0, None, sizes)
    left = budget.budget[largest] - budget.usage[largest]
    known = budget.budget[largest] > 0  # a driver without VK_EXT_memory_budget leaves it alone
    return GpuMemory(vendor_id, device_id, int(memory.heaps[largest].size), max(0, left) if known else None, sizes)


def subgroup_sizes(vendor_id: int, device_id: int) -> tuple[int, int]:
    """`GpuMemory.subgroups` of such a GPU; (0, 0) where Vulkan does not know it."""
    found = (each.subgroups for each in gpu_memories() if (each.vendor_id, each.device_id) == (vendor_id, device_id))
    return next(found, (0, 0))
