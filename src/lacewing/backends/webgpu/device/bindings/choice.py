"""Which binding shows the adapters: wgpu-native, or Dawn where LACEWING_WEBGPU asks for it."""

from __future__ import annotations

import importlib
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
    return dawn().adapters(interfaces) if wanted_binding() == "dawn" else NATIVE.adapters(interfaces)
