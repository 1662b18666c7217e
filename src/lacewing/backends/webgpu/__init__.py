"""Any GPU through wgpu (Vulkan, Metal, Direct3D 12), with our own WGSL kernels. wgpu is imported when a GPU is asked for."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lacewing.backends.base import Candidate, ModelRequirements, NoDeviceError
from lacewing.errors import BackendError, first_line

if TYPE_CHECKING:
    from lacewing.backends.webgpu.backend import WebGPUBackend

# One of these exists where Linux has a driver for a GPU; looking is a thousand times quicker than loading wgpu.
_DEVICES = ("dri/renderD*", "nvidia[0-9]*", "dxg", "kfd", "mali*", "kgsl*")


def open(threads: int | None = None, adapter: str | int | None = None, required: ModelRequirements | None = None) -> WebGPUBackend:
    """`adapter`: index or name; None: the best. `required`: only an adapter that `auto` takes for that model, unless `adapter`
    names one. `threads` is ignored.

    Raises BackendError where there is no GPU that wgpu can use, or none that suits; OptionError for an unknown adapter;
    UnsupportedModelError for a model that has what this backend lacks.
    """
    if required is not None and not hardware():
        raise NoDeviceError("this machine has no GPU")
    _load()
    from lacewing.backends.webgpu.backend import WebGPUBackend, check, shared
    from lacewing.backends.webgpu.device.adapters import adapters, choose_adapter, judge

    if required is None or adapter is not None:
        chosen = choose_adapter(adapter)
        return WebGPUBackend(shared(chosen), chosen.facts())
    check(required.program, required.weights)
    refused, found = [], adapters()
    for needed in dict.fromkeys((required.nbytes, required.nbytes if required.min_nbytes is None else required.min_nbytes)):
        judged = [(each, *judge(each, needed)) for each in found]
        for each, suits, _ in judged:
            if suits:
                return WebGPUBackend(shared(each), each.facts())
        refused = [f"{each.name}: {reason}" for each, _, reason in judged]
    if all(each.kind == "software" for each in found):
        raise NoDeviceError("; ".join(refused))
    raise BackendError("; ".join(refused))


def candidates(needed_bytes: int | None = None) -> list[Candidate]:
    """Every adapter, software too. Raises BackendError where wgpu or a driver is missing."""
    _load()
    from lacewing.backends.webgpu.device.adapters import candidates

    return candidates(needed_bytes)


def hardware() -> bool:
    """Whether this machine may have a GPU with a driver."""
    return not sys.platform.startswith("linux") or any(any(Path("/dev").glob(pattern)) for pattern in _DEVICES)


def _load() -> None:
    try:
        importlib.import_module("wgpu.backends.wgpu_native")
    except (ImportError, OSError, RuntimeError) as error:  # wgpu raises them all where its library is missing or too new
        raise BackendError(
            f"the library wgpu cannot be loaded ({first_line(error)}); install it anew with `pip install --force-reinstall wgpu`, "
            "or use `backend='cpu'`"
        ) from error
