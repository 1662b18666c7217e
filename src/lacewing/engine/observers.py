"""Who is told what the routers of a step decided, after each run. The step keeps it only while somebody observes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lacewing.backends.step import RoutedLayer, Step

Observer = Callable[[np.ndarray, list[RoutedLayer]], object]  # positions int32 (T,) of a run, what its routers decided


class Observers:
    """Of one step. What an observer raises fails the run."""

    def __init__(self, step: Step):
        self._step = step
        self._observers: list[Observer] = []

    def __bool__(self) -> bool:
        return bool(self._observers)

    def add(self, observer: Observer) -> None:
        if not self._observers:
            self._step.watch_routes(True)
        self._observers.append(observer)

    def remove(self, observer: Observer) -> None:
        """Raises ValueError for one that does not observe."""
        self._observers.remove(observer)
        if not self._observers:
            self._step.watch_routes(False)

    def tell(self, positions: np.ndarray) -> None:
        """Of the run of tokens at these positions, which has just ended."""
        if self._observers:
            routes = self._step.routes()
            for observer in list(self._observers):
                observer(positions, routes)
