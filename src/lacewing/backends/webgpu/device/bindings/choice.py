"""Which binding shows an adapter: wgpu-native, or Dawn where it is installed and the adapter has matrix units."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Sequence
from typing import Any

from lacewing.backends.webgpu.device.bindings.base import Binding
from lacewing.backends.webgpu.device.bindings.native import NATIVE
from lacewing.errors import BackendError, OptionError, first_line, install_extra

BINDINGS = ("dawn", "wgpu")


def binding_of(thing: Any) -> Binding:
    """The binding of an adapter or a device."""
    return dawn() if type(thing).__module__.partition(".")[0] == "wgpudawn" else NATIVE


def installed() -> bool:
    """Whether Dawn is here; it is imported only where it is of use."""
    return importlib.util.find_spec("wgpudawn") is not None


def dawn() -> Binding:
    """Raises BackendError where it cannot be loaded."""
    try:
        found: Binding = importlib.import_module("lacewing.backends.webgpu.device.bindings.dawn").DAWN
    except (ImportError, OSError, AttributeError, RuntimeError) as error:
        raise BackendError(
            f"Dawn cannot be loaded ({first_line(error)}); {install_extra('dawn')} brings it, and LACEWING_WEBGPU=wgpu does without"
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
    """The adapters of these interfaces, each through its binding. Raises BackendError where a binding is forced and missing."""
    wanted = wanted_binding()
    if wanted == "dawn":
        return dawn().adapters(interfaces)
    found = NATIVE.adapters(interfaces)
    if wanted == "wgpu" or not installed() or all(gpu.info["adapter_type"] == "CPU" for gpu in found):
        return found  # no software has matrix units
    return _with_units(found, dawn(), interfaces)


def _with_units(found: list[Any], other: Binding, interfaces: Sequence[str]) -> list[Any]:
    """Of adapters that both show, those of `other` that have matrix units. Of several that are alike the first is the first."""
    theirs, chosen = other.adapters(interfaces), []
    for gpu in found:
        at = next((at for at, one in enumerate(theirs) if _same(one.info, gpu.info)), None)
        twin = None if at is None else theirs.pop(at)
        chosen.append(twin if twin is not None and "subgroup-matrix" in other.features(twin) else gpu)
    return chosen


def _same(one: Any, other: Any) -> bool:
    return all(one[name] == other[name] for name in ("vendor_id", "device_id", "backend_type"))
