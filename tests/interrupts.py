"""Ctrl-C from a thread that reaches the block meant to be interrupted, and never a later test."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

PATIENCE = 20.0
"""Seconds for which the block's work is waited for."""


@contextmanager
def pressed(begun: threading.Event, after: float = 0) -> Iterator[list[float]]:
    """Sends this process SIGINT `after` seconds after `begun` is set, if the block is still running then. Gives the time of it, of
    `time.perf_counter`, once it is sent.

    None follows a block that has ended, by an error say: at any other time a signal would end pytest, or xdist's worker."""
    sent: list[float] = []
    over, lock = threading.Event(), threading.Lock()

    def press() -> None:
        if begun.wait(PATIENCE) and not over.wait(after):
            with lock:
                if not over.is_set():
                    sent.append(time.perf_counter())
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=press, name="presses Ctrl-C")
    thread.start()
    try:
        yield sent
    finally:
        with lock:  # a signal that is sent is seen by Python before the block is left
            over.set()
        begun.set()
        thread.join()


@contextmanager
def interrupted(begun: threading.Event, after: float = 0) -> Iterator[list[float]]:
    """The block must be ended by the Ctrl-C that `pressed` sends."""
    with pytest.raises(KeyboardInterrupt), pressed(begun, after) as sent:
        yield sent
