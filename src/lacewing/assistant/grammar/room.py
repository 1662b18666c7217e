"""Work that may nest its calls thousands deep, as llguidance does along chains of rules: its stack is large, its time bounded."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from lacewing.errors import GrammarError

Result = TypeVar("Result")

_STACK = 128 << 20  # bytes of address space; 64 KiB of rules, each of which names the next, take a third of it
_lock = threading.Lock()


def with_room(work: Callable[[], Result], seconds: float, what: str) -> Result:
    """What `work` gives or raises. Raises GrammarError where it takes longer; then it is left to end by itself."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="lacewing-grammar", daemon=True)
    with _lock:
        before = threading.stack_size(_STACK)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise GrammarError(f"{what} takes longer than {seconds:g} s to compile; make it smaller")
    return results[0]
