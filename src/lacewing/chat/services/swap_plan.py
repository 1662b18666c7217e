"""Memory for another model: which of the models that are here have to give some up for it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from lacewing.chat.session.models import OnDevice, Parked
from lacewing.errors import OutOfMemoryError
from lacewing.options import LoadOptions, format_bytes
from lacewing.placement.info import ModelInfo
from lacewing.placement.place import Placement, place
from lacewing.placement.plan import MemoryPlan


@dataclass(frozen=True)
class SwapPlan:
    """How a new model fits: where it goes, and what has to be given up for it."""

    placement: Placement
    spare: int  # bytes counted as free that are in use now
    shrink: bool = False  # the current weights become lazy before the new ones are read
    drop_parked: bool = False
    drop_current: bool = False  # the current model cannot be parked

    @property
    def plan(self) -> MemoryPlan:
        return self.placement.plan


def plan_swap(info: ModelInfo, current: OnDevice | None, parked: list[Parked]) -> SwapPlan:
    """The first that works: beside all; with lazy current weights; without the parked models; instead of the current one.

    A model that goes to the GPU as a whole needs no RAM; what is there now leaves it in time (`evict`). Raises OutOfMemoryError.
    """
    eager, own, touched = 0, 0, 0
    if current is not None:
        eager, own, touched = current.model.weights.anonymous_bytes, current.model.memory_bytes, current.touched_bytes
    aside = sum(each.model.memory_bytes for each in parked)
    freed = sum(each.model.device_bytes for each in (*parked, *([current] if current is not None else [])))
    levels: tuple[tuple[int, int, dict[str, bool]], ...] = (
        (0, aside + own, {}),
        (eager, aside + own - eager, {"shrink": True}),
        (eager + aside, own - eager, {"shrink": True, "drop_parked": True}),
        (eager + aside + touched, 0, {"shrink": True, "drop_parked": True, "drop_current": True}),
    )
    found: SwapPlan | None = None
    problem: OutOfMemoryError | None = None
    for spare, kept, cost in levels:
        try:
            placement = place(info, _within(info.options, kept), spare=spare, freed=freed)
        except OutOfMemoryError as error:
            problem = error
            continue
        plan, room = placement.plan, SwapPlan(placement, spare, **cost)
        if not placement.on_host:
            return room
        if plan.residency == "eager" or info.options.residency == "lazy" or "drop_parked" in cost:
            return found or room if plan.residency == "lazy" else room
        found = found or room
    if found is None:
        raise problem or OutOfMemoryError("no memory is left")
    return found


def _within(options: LoadOptions, kept: int) -> LoadOptions:
    """The memory option, less what stays in use."""
    if options.memory_bytes is None:
        return options
    left = options.memory_bytes - kept
    if left < 1:
        raise OutOfMemoryError(
            f"of the memory option of {format_bytes(options.memory_bytes)}, the models that are here use {format_bytes(kept)}"
        )
    return dataclasses.replace(options, memory_bytes=left)
