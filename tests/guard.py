"""What tests must leave as they found it: the settings of the process after each test, our modules after each file.

What is left changed fails the test (for modules, the last one of the file) and is put back, so that no later test fails for it.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
import threading
import tracemalloc
from _signal import getsignal  # the same one of `signal` makes an enum of its answer, which takes 5 us
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np

_CURRENT = b"PYTEST_CURRENT_TEST"  # which pytest changes itself
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM", "SIGUSR1") if hasattr(signal, name)]
_MODULES = ("os", "sys", "signal", "time", "socket", "subprocess", "threading", "shutil", "tempfile", "ctypes", "mmap", "psutil")
_CODE = (FunctionType, BuiltinFunctionType, type, property, staticmethod, classmethod)


class _Setting(NamedTuple):
    read: Callable[[], Any]
    put_back: Callable[[Any], object]


def _environment() -> dict[Any, Any]:
    found = dict(os.environ._data)  # type: ignore[attr-defined]  # as bytes: the mapping itself decodes each value
    found.pop(_CURRENT, None)
    return found


def _set_environment(wanted: dict[Any, Any]) -> None:
    data = os.environ._data  # type: ignore[attr-defined]
    for name in set(data) - set(wanted) - {_CURRENT}:
        os.unsetenv(name)
        del data[name]
    for name, value in wanted.items():
        os.putenv(name, value)
        data[name] = value


def _handlers() -> list[Any]:
    return [getsignal(number) for number in _SIGNALS]


def _set_handlers(wanted: list[Any]) -> None:
    for number, handler in zip(_SIGNALS, wanted, strict=True):
        if handler is not None:
            signal.signal(number, handler)


def _set_list(target: list[str]) -> Callable[[list[str]], None]:
    return lambda wanted: target.__setitem__(slice(None), wanted)


_SETTINGS = {
    "os.environ": _Setting(_environment, _set_environment),
    "the signals' handlers": _Setting(_handlers, _set_handlers),
    "the working directory": _Setting(os.getcwd, os.chdir),
    "sys.argv": _Setting(lambda: list(sys.argv), lambda wanted: setattr(sys, "argv", wanted)),
    "sys.path": _Setting(lambda: list(sys.path), _set_list(sys.path)),
    "the collector of cycles": _Setting(gc.isenabled, lambda wanted: (gc.enable if wanted else gc.disable)()),
    "its thresholds": _Setting(gc.get_threshold, lambda wanted: gc.set_threshold(*wanted)),
    "tracemalloc": _Setting(tracemalloc.is_tracing, lambda wanted: (tracemalloc.start if wanted else tracemalloc.stop)()),
    "the switch interval": _Setting(sys.getswitchinterval, sys.setswitchinterval),
    "the recursion limit": _Setting(sys.getrecursionlimit, sys.setrecursionlimit),
    "threading.excepthook": _Setting(lambda: threading.excepthook, lambda wanted: setattr(threading, "excepthook", wanted)),
    "logging.disable": _Setting(lambda: logging.root.manager.disable, logging.disable),
    "the level of our log": _Setting(lambda: logging.getLogger("lacewing").level, logging.getLogger("lacewing").setLevel),
    "NumPy's errors": _Setting(np.geterr, lambda wanted: np.seterr(**wanted)),
}
if sys.platform == "linux":
    _SETTINGS["the CPUs of this thread"] = _Setting(lambda: os.sched_getaffinity(0), lambda wanted: os.sched_setaffinity(0, wanted))


@contextlib.contextmanager
def settings_kept() -> Iterator[None]:
    """Raises AssertionError if the block leaves a setting of the process changed. About 30 us."""
    before = [each.read() for each in _SETTINGS.values()]
    yield
    after = [each.read() for each in _SETTINGS.values()]
    if before == after:
        return
    changed = []
    for name, was, found, setting in zip(_SETTINGS, before, after, _SETTINGS.values(), strict=True):
        if was != found:
            changed.append(f"{name}: {_difference(was, found)}")
            setting.put_back(was)
    raise AssertionError("a test left changed " + "; ".join(changed))


def _difference(was: Any, found: Any) -> str:
    if isinstance(was, dict):
        names = sorted(name for name in {*was, *found} if was.get(name) != found.get(name))
        was, found = ({name: values.get(name) for name in names} for values in (was, found))
    return f"{found!r} instead of {was!r}"


class Modules:
    """The functions, classes and constants of our modules, and those of some of Python's, as they were."""

    def __init__(self) -> None:
        self._modules: dict[str, ModuleType] = {}
        self._owners: dict[Any, tuple[int, list[Any]]] = {}  # of each module: how many names it had, and itself with its classes
        self._known: dict[Any, dict[str, Any]] = {}

    def restored(self) -> list[str]:
        """The names of those that are not what they were; they are again. What is new is known from now on. About 8 ms."""
        changed = [name for name, module in self._modules.items() if sys.modules.get(name) is not module]
        sys.modules |= {name: self._modules[name] for name in changed}
        self._modules |= {name: each for name, each in sys.modules.items() if name.startswith("lacewing") or name in _MODULES}
        for module in self._modules.values():
            for owner in self._owners_of(module):
                changed += self._restored(owner)
        return changed

    def _owners_of(self, module: ModuleType) -> list[Any]:
        count, owners = self._owners.get(module, (0, []))
        if count != len(vars(module)):
            ours = module.__name__.startswith("lacewing")
            classes = (each for each in vars(module).values() if ours and isinstance(each, type))
            owners = [module, *(each for each in classes if each.__module__ == module.__name__)]
            self._owners[module] = len(vars(module)), owners
        return owners

    def _restored(self, owner: Any) -> list[str]:
        found, known = vars(owner), self._known.get(owner)
        if known is None:
            self._known[owner] = {name: value for name, value in found.items() if _is_fixed(owner, name, value)}
            return []
        changed = [name for name, value in known.items() if found.get(name) is not value]
        for name in changed:
            setattr(owner, name, known[name])
        return [
            f"{owner.__module__}.{owner.__name__}.{name}" if isinstance(owner, type) else f"{owner.__name__}.{name}"
            for name in changed
        ]


def _is_fixed(owner: Any, name: str, value: Any) -> bool:
    if name == "excepthook":  # Typer sets it whenever a command runs
        return False
    return isinstance(value, _CODE) or (name.isupper() and owner.__name__ not in _MODULES)
