"""Progress of long work on standard error: a bar on a terminal, else one plain line. Short work shows nothing."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Any

from lacewing.console.output import clean_line, is_quiet, print_text
from lacewing.options import format_bytes

PATIENCE = 0.4  # seconds that work may take unannounced
_BYTES_FROM = 10**6  # totals from here on are shown as bytes


class Reporter:
    """A `Progress` that may be called from several threads; use it in a `with`."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience, self._lock = patience, threading.Lock()
        self._began: dict[str, float] = {}
        self._tasks: dict[str, Any] = {}
        self._bars: Any = None

    def __call__(self, what: str, done: int, total: int) -> None:
        with self._lock:
            if is_quiet():
                return
            waited = time.monotonic() - self._began.setdefault(what, time.monotonic())
            if what in self._tasks or (waited >= self._patience and done < total):
                self._show(what, done, total)

    def _show(self, what: str, done: int, total: int) -> None:
        if not sys.stderr.isatty():
            if what not in self._tasks:
                self._tasks[what] = None
                print_text(f"{clean_line(what)} ...", sys.stderr)
            return
        if self._bars is None:
            self._bars = _bars()
            self._bars.start()
        amount = f"{format_bytes(done)} of {format_bytes(total)}" if total >= _BYTES_FROM else f"{done} of {total}"
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(clean_line(what), total=total, amount=amount)
        self._bars.update(self._tasks[what], completed=done, total=total, amount=amount)

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._lock:
            if self._bars is not None:
                self._bars.stop()


def _bars() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    what, amount = (TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[amount]}"))
    return Progress(what, BarColumn(), amount, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
