"""The slots are filled with the experts that were used most, as the model's history tells, before the first run.

It happens in the background once a model is loaded, so that nobody waits for it: the first run ends it. What a prompt needs is read
by the prompt itself, better informed and at the same speed; what is gained is the time in which nobody has asked anything yet.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np

from lacewing.errors import Cancelled, LacewingError
from lacewing.weights.experts.layer import LayerExperts
from lacewing.weights.experts.slots import Read, StreamStatistics

_AHEAD = 4  # experts that are read at a time; the first run waits for these


class WarmStart:
    """Fills the free slots of layers, the most used experts of all layers first; not with those that are used elsewhere, which is
    known when it begins."""

    def __init__(self, layers: Sequence[LayerExperts], slots: int, statistics: StreamStatistics):
        self._layers, self._statistics, self._stop = layers, statistics, threading.Event()
        self._slots = slots
        self._thread = threading.Thread(target=self._fill, name="lacewing-experts-warm", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    @property
    def planned(self) -> int:
        """How many experts."""
        return sum(map(len, self._order))

    @property
    def _order(self) -> list[np.ndarray]:
        """Of each layer its experts, the most used first."""
        found = []
        for layer in self._layers:
            uses = np.where(layer.elsewhere, 0.0, layer.usage.history)
            order = np.argsort(-uses, kind="stable")[: self._slots]
            found.append(order[uses[order] > 0])
        return found

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def end(self) -> None:
        """Nothing comes any more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def wait(self, seconds: float | None = None) -> bool:
        """Whether all has come, within so many seconds; None: however long it takes."""
        if self._thread.is_alive():
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _experts(self) -> Iterator[tuple[LayerExperts, int, int]]:
        """Layer, slot, expert."""
        orders = self._order
        for rank in range(max(map(len, orders), default=0)):
            for layer, order in zip(self._layers, orders, strict=True):
                if rank < len(order):
                    yield layer, rank, int(order[rank])

    def _fill(self) -> None:
        reads: deque[tuple[LayerExperts, Read]] = deque()
        try:
            for layer, slot, expert in self._experts():
                if self._stop.is_set():
                    break
                reads.append((layer, layer.begin_in(slot, expert)))
                if len(reads) == _AHEAD:
                    self._arrive(*reads.popleft())
            while reads:
                self._arrive(*reads.popleft())
        except LacewingError:  # it was ended, or the file is gone, of which the next run tells
            for _, read in reads:
                for part in read.parts:
                    part.cancel()

    def _arrive(self, layer: LayerExperts, read: Read) -> None:
        self._statistics.warmed_bytes += layer.arrived(read, self._check)
        self._statistics.warmed += 1

    def _check(self) -> None:
        """What takes longer is left to itself: its slot is free when it has ended."""
        if self._stop.is_set():
            raise Cancelled("the first run has begun")
