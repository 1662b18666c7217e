"""Bars for long work: bytes, rate and what remains. They stand in the region below the output and leave nothing behind."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from lacewing.chat.output import clean
from lacewing.chat.terminal.region import Region
from lacewing.options import format_bytes

PATIENCE = 0.25  # seconds that work may take unannounced
INTERVAL = 0.1  # seconds between two drawings
BYTES_FROM = 10**6  # totals from here on are bytes
CANCELS, STOPPING = "(Ctrl-C cancels)", "(stopping; Ctrl-C again leaves)"
_BAR = 24  # columns, at most


@dataclass
class _Work:
    began: float
    done: int = 0
    total: int = 0


class Bars:
    """A `progress(what, done, total)` that may be called from several threads; `clear` ends all of them."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic):
        self._clock, self._lock = clock, threading.Lock()
        self._region = Region(stream, shutil.get_terminal_size)
        self._work: dict[str, _Work] = {}
        self._drawn = 0.0
        self.cancelled: Callable[[], bool] = lambda: False  # whether the work has been told to end

    def __call__(self, what: str, done: int, total: int) -> None:
        with self._lock:
            now = self._clock()
            work = self._work.setdefault(what, _Work(now))
            work.done, work.total = done, max(total, 1)
            if done >= total:
                del self._work[what]
            if now - self._drawn >= INTERVAL or (done >= total and self._drawn):
                self._draw(now)

    def clear(self) -> None:
        """Take the bars away."""
        with self._lock:
            self._region.show(())
            self._work.clear()
            self._drawn = 0.0

    def _draw(self, now: float) -> None:
        long = [(what, work) for what, work in self._work.items() if now - work.began >= PATIENCE]
        if long or self._drawn:
            width, hint = shutil.get_terminal_size().columns - 1, STOPPING if self.cancelled() else CANCELS
            self._region.show([bar_line(what, work.done, work.total, now - work.began, width, hint) for what, work in long])
            self._drawn = now


def bar_line(what: str, done: int, total: int, seconds: float, width: int = 120, hint: str = CANCELS) -> str:
    """`reading ━━━━━━──── 42% 300.1 MiB of 700.2 MiB, 1.1 GiB/s, 1 s left (Ctrl-C cancels)`, in at most `width` columns."""
    share = min(done / total, 1.0)
    rate = done / seconds if seconds > 0 else 0.0
    if total >= BYTES_FROM:
        amount, speed = f"{format_bytes(done)} of {format_bytes(total)}", f"{format_bytes(rate)}/s"
    else:
        amount, speed = f"{done} of {total}", f"{rate:.0f}/s"
    left = f", {(total - done) / rate:.0f} s left" if rate and share < 1 else ""
    text = f"{share:4.0%} {amount}, {speed}{left} {hint}"
    bar = min(max(width - len(what) - len(text) - 2, 5), _BAR)
    filled = round(share * bar)
    return f"{clean(what)} {'━' * filled}{'─' * (bar - filled)} {text}"[: max(width, 0)]
