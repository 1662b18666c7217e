"""Room for a model beside others that are in memory: what can be given up for it, and how much of that it takes.

A model that is put aside keeps its KV cache, so that going back to it is quick; its weights are mapped, and leave the memory as
the system needs it. The chat parks models so, and the server those that nobody asks for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lacewing.errors import OutOfMemoryError
from lacewing.options import LoadOptions, format_bytes
from lacewing.placement.info import ModelInfo
from lacewing.placement.place import GPU_SHARE, Placement, place

if TYPE_CHECKING:
    from lacewing.backends.base import Backend


@dataclass(frozen=True)
class Level:
    """Something to give up for a model. Bytes of RAM: `spare` are in use now and free then, `kept` stay in use by models; `freed`:
    of a GPU. Not `for_speed`: only if the model does not fit otherwise, not to have it faster."""

    spare: int = 0
    kept: int = 0
    freed: int = 0
    for_speed: bool = True


def first_fit(info: ModelInfo, levels: Sequence[Level], options: LoadOptions | None = None) -> tuple[int, Placement]:
    """The number of the first level at which a model is as fast as it can be, and where it goes then.

    `options`: as for `place`. Raises OutOfMemoryError if it fits at none.
    """
    options = options or info.options
    found: list[tuple[tuple[int, bool, int], int, Placement]] = []
    problem: OutOfMemoryError | None = None
    most = max((level.freed for level in levels if level.for_speed), default=0)
    for index, level in enumerate(levels):
        if found and not level.for_speed:
            break
        try:
            placement = place(info, _within(options, level.kept), spare=level.spare, freed=level.freed)
        except OutOfMemoryError as error:
            problem = error
            continue
        eager, slots = placement.plan.residency == "eager" or options.residency == "lazy", placement.plan.slots
        found.append(((placement.device_bytes, eager, slots.layer if slots else 0), index, placement))
        if not placement.on_host or (placement.gpu is None and eager and level.freed >= most):
            break  # nothing is faster
    if not found:
        raise problem or OutOfMemoryError("no memory is left")
    _, index, placement = max(found, key=lambda each: each[0])  # the first of equals
    return index, placement


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


class _Weights(Protocol):
    def release(self) -> None: ...


class Movable(Protocol):
    """What is asked of a model that is put aside: `lacewing.api.Model` has it."""

    @property
    def weights(self) -> _Weights: ...

    def set_residency(self, residency: str, *, force: bool, reason: str) -> None: ...


def put_aside(model: Movable, reason: str) -> bool:
    """Whether its weights, if some are in RAM, are lazy and left to the system now. If not, because a file is gone or a
    device is lost, the model is of no use any more."""
    try:
        model.set_residency("lazy", force=True, reason=reason)
        model.weights.release()
    except Exception:  # drivers raise what they like
        return False
    return True


def is_short(backend: Backend, needed: int) -> bool:
    """Whether a GPU lacks room for so many bytes more."""
    room = backend.room_bytes()
    return room is not None and needed > GPU_SHARE * room
