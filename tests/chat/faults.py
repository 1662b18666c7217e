"""Failures put into a session on purpose: at a step of a swap, or a cancellation after some polls."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest import mock

from lacewing.chat.services import swap
from lacewing.chat.session.session import Session
from lacewing.errors import LacewingError

STEPS = ("find", "open_header", "open_text", "check_history", "make_room", "load", "read_history")


class Injected(LacewingError):
    pass


@contextlib.contextmanager
def failing(step: str, when: str, error: type[BaseException] = Injected) -> Iterator[None]:
    """The step of a swap raises before or after its work."""
    original = getattr(swap.Swap, step)

    def fail(self, *arguments):
        if when == "after":
            result = original(self, *arguments)
            if hasattr(result, "close"):
                result.close()
        raise error(f"{step} fails, {when} its work")

    def fail_reading(*arguments):
        if when == "after":
            read_history(*arguments)
        raise error(f"read_history fails, {when} its work")

    read_history = swap.read_history
    back = mock.patch.object(swap, "read_history", fail_reading) if step == "read_history" else contextlib.nullcontext()
    with mock.patch.object(swap.Swap, step, fail), back:  # the function also serves the way back to a parked model
        yield


@contextlib.contextmanager
def cancelling(session: Session, after: int) -> Iterator[None]:
    """Ctrl-C at the poll after so many."""
    count = 0

    def cancelled() -> bool:
        nonlocal count
        count += 1
        return count > after

    before, session.ui.cancelled = session.ui.cancelled, cancelled
    try:
        yield
    finally:
        session.ui.cancelled = before
