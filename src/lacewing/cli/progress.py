"""Progress of long work on standard error: bars on a terminal, else one plain line. Short work shows nothing."""

from __future__ import annotations

import os
import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

from lacewing.console.output import clean_line, is_quiet, print_text

if TYPE_CHECKING:
    from lacewing.chat.terminal.progress import Bars

PATIENCE = 0.4  # seconds that work may take unannounced


class Reporter:
    """A `Progress` that may be called from several threads; use it in a `with`."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience, self._lock = patience, threading.Lock()
        self._began: dict[str, float] = {}
        self._told: set[str] = set()
        self._bars: Bars | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        with self._lock:
            if is_quiet():
                return
            if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
                self._on_terminal()(what, done, total)
                return
            waited = time.monotonic() - self._began.setdefault(what, time.monotonic())
            if what not in self._told and waited >= self._patience and done < total:
                self._told.add(what)
                print_text(f"{clean_line(what)} ...", sys.stderr)

    def _on_terminal(self) -> Bars:
        from lacewing.chat.terminal.progress import Bars

        if self._bars is None:
            self._bars = Bars(sys.stderr, patience=self._patience)
        return self._bars

    def clear(self) -> None:
        """Take bars away before something else is written."""
        with self._lock:
            if self._bars is not None:
                self._bars.clear()

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.clear()
