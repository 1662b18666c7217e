"""Devices. A backend is a folder here, imported when asked for; `gpu` is what some share. Its `__init__.py` has

`open(threads) -> Backend`, for a backend of several devices `open(threads, adapter, required)`, where `required` without `adapter`
asks for one that suits, and with it for that one unless the machine has no such hardware; and
`candidates(needed_bytes) -> list[Candidate]`.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from lacewing.backends.base import Backend, Candidate, ModelRequirements, NoDeviceError
from lacewing.errors import BackendError, LacewingError, OptionError
from lacewing.options import CPU, GPU, NVIDIA, REFERENCE

PREFERENCE = (NVIDIA, GPU, CPU, REFERENCE)
SHARED = ("gpu",)  # folders that are no backend
SEVERAL = (NVIDIA, GPU)  # backends of several devices, which `adapter` tells apart


def known_backends() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg and module.name not in SHARED)


def init_backend(
    name: str = "auto", threads: int | None = None, *, adapter: str | int | None = None, required: ModelRequirements | None = None
) -> Backend:
    """The backend of that name, on the `adapter` of that index or name; `threads` None: as it sees fit.

    "auto" takes a GPU that suits what `required` tells of the model, else the CPU; the one of `adapter`, where that is given.
    "cuda:1" is the adapter 1 of the backend "cuda".
    Raises OptionError for an unknown name, BackendError where the backend cannot be used on this machine.
    """
    return choose_backend(name, threads, adapter=adapter, required=required)[0]


def choose_backend(
    name: str = "auto", threads: int | None = None, *, adapter: str | int | None = None, required: ModelRequirements | None = None
) -> tuple[Backend, list[str]]:
    """`init_backend`, and why `auto` did not take what this machine has and is faster, or another backend has the `adapter`."""
    if adapter is None and ":" in name:
        name, _, adapter = name.partition(":")
    if name != "auto":
        return _open(name, threads, adapter), []
    if adapter is not None:
        return _open_adapter(threads, adapter)
    problems: list[str] = []
    absent: list[str] = []
    for candidate in PREFERENCE:
        try:
            return _open(candidate, threads, None, required or ModelRequirements.nothing()), problems
        except NoDeviceError as error:
            absent.append(f"{candidate}: {error}")
        except LacewingError as error:  # none works here, or none suits the model
            problems.append(f"{candidate}: {error}")
    raise BackendError("no backend works here; " + "; ".join([*absent, *problems]))


def _open_adapter(threads: int | None, adapter: str | int) -> tuple[Backend, list[str]]:
    """The GPU of that index or name in the first backend that has it, and why those before did not work.

    Raises what the last of them does, with these reasons.
    """
    problems: list[str] = []
    for name in SEVERAL[:-1]:
        try:
            return _open(name, threads, adapter, ModelRequirements.nothing()), problems
        except (NoDeviceError, OptionError):
            continue  # it has no such GPU
        except LacewingError as error:
            problems.append(f"{name}: {error}")
    try:
        return _open(SEVERAL[-1], threads, adapter), problems
    except (BackendError, OptionError) as error:
        if not problems:
            raise
        raise type(error)("; ".join([str(error), *problems])) from error


def candidates(name: str, needed_bytes: int | None = None) -> list[Candidate]:
    """The devices of a backend, and which of them `auto` would take. Raises BackendError where it cannot be used."""
    found: list[Candidate] = _module(name).candidates(needed_bytes)
    return found


def _open(name: str, threads: int | None, adapter: str | int | None = None, required: ModelRequirements | None = None) -> Backend:
    module = _module(name)
    if name in SEVERAL:
        backend: Backend = module.open(threads, adapter, required)
        return backend
    if adapter is not None:
        raise OptionError(f"the backend {name} has only one device; leave out `adapter`, which is {adapter!r}")
    backend = module.open(threads)
    return backend


def _module(name: str) -> Any:
    if name not in known_backends():
        raise OptionError(f"`backend` is {name!r}, which does not exist; there are auto, {', '.join(known_backends())}")
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ImportError as error:
        raise BackendError(f"backend {name} cannot be loaded: {error}") from error
