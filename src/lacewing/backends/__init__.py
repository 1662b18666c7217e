"""Devices. A backend is a folder here with `open(threads) -> Backend` in its `__init__.py`, imported when asked for."""

from __future__ import annotations

import importlib
import pkgutil

from lacewing.backends.base import Backend
from lacewing.errors import BackendError, OptionError

PREFERENCE = ("cpu", "reference")


def known_backends() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)


def open_backend(name: str = "auto", threads: int | None = None) -> Backend:
    """The backend of that name; `auto` takes the first of PREFERENCE that works here. `threads` None: as it sees fit.

    Raises OptionError for an unknown name, BackendError where the backend cannot be used on this machine.
    """
    if name != "auto":
        return _open(name, threads)
    problems = []
    for candidate in PREFERENCE:
        try:
            return _open(candidate, threads)
        except BackendError as error:
            problems.append(f"{candidate}: {error}")
    raise BackendError("no backend works here; " + "; ".join(problems))


def _open(name: str, threads: int | None) -> Backend:
    if name not in known_backends():
        raise OptionError(f"backend {name!r} does not exist; there are auto, {', '.join(known_backends())}")
    try:
        module = importlib.import_module(f"{__name__}.{name}")
    except ImportError as error:
        raise BackendError(f"backend {name} cannot be loaded: {error}") from error
    backend: Backend = module.open(threads)
    return backend
