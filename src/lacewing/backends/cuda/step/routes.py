"""Watching the routers of mixtures of experts: their decisions stay on the device, and are read back when asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lacewing.backends.cuda.device.device import Buffer, Device
from lacewing.backends.cuda.lowering.launches import Router
from lacewing.backends.step import RoutedLayer


class RouteWatch:
    """The routers of a step, and what they decided in the last run while `on`: their kernels keep it where a pointer leads."""

    def __init__(self, device: Device, routers: Sequence[Router], chunk: int, pointer: Buffer):
        self._device, self._routers, self._chunk, self._pointer = device, routers, chunk, pointer
        self._stride = sum(router.words for router in routers)
        self._kept: Buffer | None = None
        self.tokens = 0  # of the last run
        self._point()

    @property
    def on(self) -> bool:
        return self._kept is not None

    def share_of_experts(self, tokens: int) -> float:
        """At most so much of all experts do so many tokens choose; 1 without routers."""
        return min([1.0, *(tokens * router.active / router.experts for router in self._routers)])

    def switch(self, on: bool) -> None:
        """Begin or end to keep decisions."""
        on, self.tokens = on and bool(self._routers), 0
        if on and self._kept is None:
            self._kept = self._device.buffer(4 * self._stride * self._chunk, "the routers' decisions")
            self._point()
        elif not on:
            self.close()

    def _point(self) -> None:
        address = 0 if self._kept is None else self._kept.address
        self._device.write(self._pointer, 0, np.array([address], np.uint64))

    def read(self) -> list[RoutedLayer]:
        """What was decided in the last run, layer by layer."""
        if self._kept is None or not self.tokens:
            return []
        words = self._device.read(self._kept, 0, 4 * self._stride * self.tokens).view(np.uint32).reshape(self.tokens, self._stride)
        found = []
        for router in self._routers:
            ids = words[:, router.first : router.first + router.active].astype(np.int32)
            shares = np.ascontiguousarray(words[:, router.first + router.active : router.first + router.words]).view(np.float32)
            found.append(RoutedLayer(router.layer, ids, shares))
        return found

    def close(self) -> None:
        if self._kept is not None:
            kept, self._kept = self._kept, None
            self._device.give_back(self._point)
            self._device.settle()
            self._device.free(kept)
