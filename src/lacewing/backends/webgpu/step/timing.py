"""The dispatches of a run by the names of their kernels, to be timed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lacewing.backends.gpu.run import Run
from lacewing.backends.webgpu.device.clock import Timed
from lacewing.backends.webgpu.lowering.dispatches import Dispatch


def timed_of(dispatches: Sequence[Dispatch], run: Run, weight_buffers: Sequence[Any], chosen: float) -> dict[str, Timed]:
    """What a run replays, by kernels. An embedding reads a row a token, experts the share `chosen` of their weights."""
    weights = {id(buffer) for buffer in weight_buffers}
    found: dict[str, Timed] = {}
    for each in dispatches:
        grid = each.grid(run)
        if grid is not None:
            one = found.setdefault(each.label, Timed())
            share = 0.0 if each.label == "embed" else chosen if each.label.startswith("expert_") else 1.0
            one.nbytes += int(share * sum(part.size for part in each.bindings if id(part.buffer) in weights))
            one.recorded.append(each.recorded(grid))
    return found
