"""Which binding shows an adapter: Dawn where it is installed and the GPU has matrix units, else wgpu-native."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
from collections.abc import Sequence
from functools import cache
from typing import Any

from lacewing.backends.webgpu.device.bindings.base import Binding
from lacewing.backends.webgpu.device.bindings.native import NATIVE
from lacewing.errors import BackendError, OptionError, first_line, install_extra

_log = logging.getLogger("lacewing.webgpu")
BINDINGS = ("dawn", "wgpu")
_SAME = ("vendor_id", "device_id", "device", "backend_type")


def binding_of(thing: Any) -> Binding:
    """The binding of an adapter or a device."""
    return dawn() if type(thing).__module__.partition(".")[0] == "wgpudawn" else NATIVE


def dawn() -> Binding:
    """Raises BackendError where it cannot be loaded."""
    try:
        found: Binding = importlib.import_module("lacewing.backends.webgpu.device.bindings.dawn").DAWN
    except (ImportError, OSError, AttributeError, RuntimeError) as error:
        raise BackendError(
            f"Dawn cannot be loaded ({first_line(error)}); {install_extra('dawn')} brings it, "
            "or leave dawn out of LACEWING_WEBGPU, so that wgpu-native is used"
        ) from error
    return found


def wanted_binding() -> str | None:
    """ "dawn" or "wgpu" where LACEWING_WEBGPU names one. Raises OptionError for both."""
    text = os.environ.get("LACEWING_WEBGPU", "")
    named = [name for name in BINDINGS if name in {word.strip() for word in text.split(",")}]
    if len(named) > 1:
        raise OptionError(f"LACEWING_WEBGPU={text}: name dawn or wgpu, not both")
    return named[0] if named else None


def shown(interfaces: Sequence[str]) -> list[Any]:
    """The adapters of these interfaces. Raises BackendError where Dawn is asked for and missing."""
    wanted = wanted_binding()
    if wanted == "dawn":
        return dawn().adapters(interfaces)
    found = NATIVE.adapters(interfaces)
    software = all(gpu.info["adapter_type"] == "CPU" for gpu in found)  # it has no units, and may be too old for Dawn
    named = wanted == "wgpu" or os.environ.get("WGPU_LIB_PATH")  # a build of wgpu-native
    if named or software or importlib.util.find_spec("wgpudawn") is None:
        return found
    return _with_units(found, interfaces)


def _with_units(found: list[Any], interfaces: Sequence[str]) -> list[Any]:
    """Dawn's in place of those whose GPU has matrix units; of several that are alike, as many as Dawn shows."""
    theirs: list[Any] = []
    try:
        theirs = [gpu for gpu in dawn().adapters(interfaces) if _has_units(gpu)]
    except Exception as error:  # an early release, which wgpu-native must not suffer from
        _tell(first_line(error))
    made = []
    for gpu in found:
        twin = next((other for other in theirs if all(other.info[name] == gpu.info[name] for name in _SAME)), None)
        if twin is not None:
            theirs.remove(twin)
        made.append(gpu if twin is None else twin)
    return made


@cache
def _tell(words: str) -> None:
    """Once a process, of an installation that does not load or finds no driver."""
    _log.warning("Dawn is installed and does not work, so wgpu-native is used, without a GPU's matrix units: %s", words)


def _has_units(gpu: Any) -> bool:
    """Those of Dawn's that the kernels can use: beside them float16 and subgroups."""
    return {"subgroup-matrix", "shader-f16", "subgroup"} <= dawn().features(gpu) and dawn().has_units(gpu)
