"""Which models of a server make room for another one: first those that nobody asked for longest, and none that is not needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lacewing.errors import OutOfMemoryError
from lacewing.options import LoadOptions
from lacewing.placement.info import ModelInfo
from lacewing.placement.place import Placement
from lacewing.placement.room import Level, first_fit
from lacewing.server.models.served import Slot


@dataclass(frozen=True)
class Footprint:
    """What a model in memory takes: bytes of RAM in all and of them eager weights, and bytes of a GPU."""

    slot: Slot
    nbytes: int
    eager: int
    device: int

    @classmethod
    def of(cls, slot: Slot) -> Footprint | None:
        """None: it is not in memory. In any thread, while another one closes it."""
        if (served := slot.served) is None:
            return None
        memory, device = served.sizes
        return cls(slot, memory, served.model.weights.anonymous_bytes, device)


class Action(NamedTuple):
    """What happens to a model. "aside": its weights leave the RAM, and it can go on with them mapped; "close": all of it goes."""

    what: str
    slot: Slot
    frees: int  # bytes of RAM
    device: int  # bytes of a GPU
    for_speed: bool


def actions(footprints: Sequence[Footprint]) -> list[Action]:
    """What can be given up, the cheapest first. A model that answers somebody is closed only if nothing else makes room."""
    order = sorted(footprints, key=lambda each: (each.slot.users > 0, each.slot.left_at))
    aside = [each for each in order if each.slot.aside]
    here = [each for each in order if not each.slot.aside]
    found = [Action("aside", each.slot, each.eager, 0, True) for each in here if each.eager and not each.device]
    for each in (*aside, *here):
        rest = each.nbytes - (each.eager if each in here and not each.device else 0)
        spared = each.slot.users == 0 and (each.slot.aside or each.device > 0)
        found.append(Action("close", each.slot, rest, each.device, spared))
    return sorted(found, key=lambda each: not each.for_speed)


def plan(info: ModelInfo, footprints: Sequence[Footprint]) -> tuple[list[Action], Placement]:
    """What to give up for a model, and where it goes then. Raises OutOfMemoryError if it fits not even alone."""
    ways = actions(footprints)
    total = sum(each.nbytes for each in footprints)
    levels = [Level(0, total)]
    for each in ways:
        last = levels[-1]
        levels.append(Level(last.spare + each.frees, max(0, last.kept - each.frees), last.freed + each.device, each.for_speed))
    index, placement = first_fit(info, levels)
    needed = [each for each in ways[:index] if each.frees or each.device]
    return [each for each in needed if _counts(each, placement)], placement


def alone(info: ModelInfo, footprints: Sequence[Footprint]) -> Placement:
    """Where a model goes if nobody makes room. Raises OutOfMemoryError."""
    return first_fit(info, [Level(0, sum(each.nbytes for each in footprints))])[1]


def plan_resident(
    info: ModelInfo, options: LoadOptions, footprints: Sequence[Footprint], own: int
) -> tuple[list[Action], str] | None:
    """Which idle models to put aside so that one that is in memory, with `own` bytes of RAM, has its weights eager
    or streamed again; and which of the two.

    None: that does not make room enough.
    """
    ways = [each for each in actions(footprints) if each.what == "aside" and not each.slot.users]
    levels = [Level(own, sum(each.nbytes for each in footprints))]
    for each in ways:
        levels.append(Level(levels[-1].spare + each.frees, levels[-1].kept - each.frees))
    try:
        index, placement = first_fit(info, levels, options)
    except OutOfMemoryError:
        return None
    found = placement.plan.residency
    return None if found == "lazy" else (ways[:index], found)


def _counts(action: Action, placement: Placement) -> bool:
    """A model that goes to a GPU as a whole needs no RAM of others."""
    return placement.on_host or action.device > 0
