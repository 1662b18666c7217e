"""Ctrl-C during an answer: the first asks the engine to stop, so that its state stays whole; the second raises an exception."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

PATIENCE = 2.0  # seconds: native code may delay Ctrl-C, and a person who waits presses it again


class Interrupt:
    """Within its `with`, Ctrl-C sets a flag; a call returns whether it is set (the engine's `cancelled`).

    A second one raises KeyboardInterrupt; within `patience` seconds after the first it still means the first.
    """

    def __init__(self, patience: float = 0.0) -> None:
        self.pressed = False
        self._patience, self._since = patience, 0.0
        self._before: Any = None

    def __call__(self) -> bool:
        return self.pressed

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _press(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.pressed:
            self.pressed, self._since = True, now
        elif now - self._since >= self._patience:
            raise KeyboardInterrupt


@contextlib.contextmanager
def ignore_sigint() -> Iterator[None]:
    """Within, Ctrl-C does nothing: what runs is short, or reads the key itself. Programs started meanwhile do hear it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


_told: Callable[[SystemExit], None] | None = None


@contextlib.contextmanager
def told_of_signals(tell: Callable[[SystemExit], None]) -> Iterator[None]:
    """Within, `ended_by_signals` calls `tell` in place of raising: an exception out of nowhere can leave an event loop hanging."""
    global _told
    before, _told = _told, tell
    try:
        yield
    finally:
        _told = before


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within, being asked to end, or a terminal that is closed, raises SystemExit, so that there is time to save."""

    def end(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)  # once is enough
        error = SystemExit(128 + number)
        if _told is None:
            raise error
        _told(error)

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # with nohup it is ignored, and stays so
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
