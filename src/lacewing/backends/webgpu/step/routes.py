"""Watching the routers of mixtures of experts: their decisions stay on the device, and are read back when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lacewing.backends.step import RoutedLayer
from lacewing.backends.webgpu.device.device import Device, Slice
from lacewing.backends.webgpu.kernels import shader
from lacewing.backends.webgpu.lowering.dispatches import Dispatch, Router


class RouteWatch:
    """The routers of a step, and what they decided in the last run while `on`."""

    def __init__(
        self, device: Device, routers: Sequence[Router], chunk: int, shared: tuple[Slice, Slice], dispatches: list[Dispatch]
    ):
        """`shared`: bindings 0 and 1 of all kernels; `dispatches`: those of the step, of which routers' are replaced."""
        self._device, self._routers, self._chunk, self._shared, self._plain = device, routers, chunk, shared, dispatches
        self._stride = sum(router.words for router in routers)
        self._kept: Any = None
        self.tokens = 0  # of the last run

    def share_of_experts(self, tokens: int) -> float:
        """At most so much of all experts do so many tokens choose; 1 without routers."""
        return min([1.0, *(tokens * router.active / router.experts for router in self._routers)])

    @property
    def on(self) -> bool:
        return self._kept is not None

    def switch(self, on: bool) -> list[Dispatch]:
        """Begin or end to keep decisions; the dispatches that the step runs from now on."""
        on, self.tokens = on and bool(self._routers), 0
        if self.on and not on:
            self.close()
        if not on:
            return self._plain
        if not self.on:
            self._kept = self._device.buffer(4 * self._stride * self._chunk, "the routers' decisions")
        found, first = list(self._plain), 0
        try:
            for router in self._routers:
                found[router.index] = self._watched(found[router.index], router, first)
                first += router.words
        except BaseException:
            self.close()
            raise
        return found

    def _watched(self, plain: Dispatch, router: Router, first: int) -> Dispatch:
        text = shader("route", **{**router.constants, "watched": True, "kept_stride": self._stride, "kept_first": first})
        pipeline = self._device.pipeline(text, "route, watched")
        kept = Slice(self._kept, 0, self._kept.size)
        found = Dispatch(plain.label, pipeline, self._shared, (*router.bindings, kept), plain.grid)
        found.bind(self._device)
        return found

    def read(self) -> list[RoutedLayer]:
        """What was decided in the last run, layer by layer."""
        if not self.on or not self.tokens:
            return []
        kept = self._device.read(self._kept, 0, 4 * self._stride * self.tokens).view(np.uint32).reshape(self.tokens, self._stride)
        found, first = [], 0
        for router in self._routers:
            ids = kept[:, first : first + router.active].astype(np.int32)
            shares = np.ascontiguousarray(kept[:, first + router.active : first + router.words]).view(np.float32)
            found.append(RoutedLayer(router.layer, ids, shares))
            first += router.words
        return found

    def close(self) -> None:
        if self._kept is not None:
            self._device.free(self._kept)
            self._kept = None
