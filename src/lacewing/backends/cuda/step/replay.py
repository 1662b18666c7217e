"""How a step's launches are run: as one graph where the same ones come again, else one by one, in parts that can be broken off."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from lacewing.backends.cuda.device.device import Device
from lacewing.backends.cuda.lowering.launches import Plan

MOST_GRAPHS, MOST_RUNS = 64, 8  # of which graphs are kept: plans of a whole model, and runs of a model in many stages
AT_ONCE = 64  # launches between two looks at whether a run was aborted


class Replay:
    """Plans of a step by what they depend on. `stages`: how many plans a run has."""

    def __init__(self, device: Device, stages: int = 1):
        self._device, self._most = device, max(MOST_GRAPHS, MOST_RUNS * stages)
        self._graphs: OrderedDict[Hashable, Any] = OrderedDict()  # None: seen once

    def often(self, key: Hashable, plan: Callable[[], Plan]) -> None:
        """Run a short plan that may come again: the second time it becomes a graph, which takes longer to make than to launch."""
        if key not in self._graphs:
            self._graphs[key] = None
            self._device.launch_all(plan())
        else:
            if self._graphs[key] is None:
                self._graphs[key] = self._device.graph(plan())
            self._device.replay(self._graphs[key])
        self._graphs.move_to_end(key)
        if len(self._graphs) > self._most:
            oldest = self._graphs.popitem(last=False)[1]
            if oldest is not None:
                self._device.wait()
                self._device.driver.close_graph(oldest)

    def once(self, plan: Plan, stop: Callable[[], None]) -> None:
        """Run a long plan; `stop` may raise between its parts; two parts are under way at a time."""
        driver, stream = self._device.driver, self._device.stream
        before: Any = None
        try:
            for first in range(0, len(plan), AT_ONCE):
                stop()
                self._device.launch_all(plan[first : first + AT_ONCE])
                waiting, before = before, driver.event()
                driver.record(before, stream)
                if waiting is not None:
                    driver.wait(waiting)
                    driver.close_event(waiting)
        finally:
            if before is not None:
                self._device.give_back(driver.close_event, before)

    def forget(self) -> None:
        """All graphs."""
        if self._graphs:
            self._device.settle()
            for graph in self._graphs.values():
                if graph is not None:
                    self._device.give_back(self._device.driver.close_graph, graph)
        self._graphs.clear()
