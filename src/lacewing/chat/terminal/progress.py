"""Progress bars for long work: bytes, rate and remaining time. They are drawn below the output and leave nothing behind."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TextIO

from lacewing.chat.terminal.region import Region
from lacewing.console.interrupt import PATIENCE as BEFORE_LEAVING
from lacewing.console.output import clean_line
from lacewing.options import format_bytes

PATIENCE = 0.25  # seconds that work may take unannounced
INTERVAL = 0.1  # seconds between two drawings
BYTES_FROM = 10**6  # totals from here on are bytes
CANCELS, STOPPING, LEAVES = "(Ctrl-C cancels)", "(stopping)", "(stopping; Ctrl-C again leaves)"
_BAR = 24  # columns, at most


@dataclass
class _Work:
    began: float
    done: int = 0
    total: int = 0


class Bars:
    """A `progress(what, done, total)` that may be called from several threads; `clear` ends all of them."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic, patience: float = PATIENCE):
        self._clock, self._lock, self._patience = clock, threading.Lock(), patience
        self._region = Region(stream, shutil.get_terminal_size)
        self._work: dict[str, _Work] = {}
        self._drawn = 0.0
        self._quiet = 0  # how many others write in place of the bars
        self._over: threading.Event | None = None  # set, it ends the thread that watches
        self.cancelled: Callable[[], bool] = lambda: False  # whether the work has been cancelled
        self._stopping: float | None = None  # since when that is known here

    def __call__(self, what: str, done: int, total: int) -> None:
        with self._lock:
            now = self._clock()
            work = self._work.setdefault(what, _Work(now))
            work.done, work.total = done, max(total, 1)
            if done >= total:
                del self._work[what]
            if not self._quiet and (now - self._drawn >= INTERVAL or (done >= total and self._drawn)):
                self._draw(now)

    def clear(self) -> None:
        """Take the bars away."""
        with self._lock:
            self._clear()

    def _clear(self) -> None:
        self._region.show(())
        self._work.clear()
        self._drawn = 0.0

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Within, no bars are drawn: others write."""
        with self._lock:
            self._clear()
            self._quiet += 1
        try:
            yield
        finally:
            with self._lock:
                self._quiet -= 1

    @contextlib.contextmanager
    def resumed(self) -> Iterator[None]:
        """Within a `paused`: bars may be drawn, and are removed afterwards."""
        with self._lock:
            self._quiet -= 1
        try:
            yield
        finally:
            with self._lock:
                self._clear()
                self._quiet += 1

    def watch(self, cancelled: Callable[[], bool]) -> None:
        """Until `unwatch`: show that cancelled work is stopping, even if it reports no progress."""
        self.unwatch()
        self.cancelled, self._over, self._stopping = cancelled, threading.Event(), None
        threading.Thread(target=self._watch, args=(self._over,), daemon=True).start()

    def unwatch(self) -> None:
        if self._over is not None:
            self._over.set()
        self._over = None
        self.clear()

    def _watch(self, over: threading.Event) -> None:
        told = 0
        while not over.wait(INTERVAL):
            told += bool(self.cancelled())
            with self._lock, contextlib.suppress(OSError):  # the terminal may be gone
                if told > 1 and not self._quiet and not over.is_set():
                    self._draw(self._clock(), stopping=True)

    def _draw(self, now: float, stopping: bool = False) -> None:
        long = [(what, work) for what, work in self._work.items() if now - work.began >= self._patience]
        if long or self._drawn or stopping:
            width, hint = shutil.get_terminal_size().columns - 1, self._hint(now)
            lines = [bar_line(what, work.done, work.total, now - work.began, width, hint) for what, work in long]
            self._region.show(lines or ([hint[:width]] if stopping else []))
            self._drawn = now

    def _hint(self, now: float) -> str:
        """What Ctrl-C does now."""
        if not self.cancelled():
            return CANCELS
        self._stopping = now if self._stopping is None else self._stopping
        return LEAVES if now - self._stopping >= BEFORE_LEAVING else STOPPING


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
    return f"{clean_line(what)} {'━' * filled}{'─' * (bar - filled)} {text}"[: max(width, 0)]
