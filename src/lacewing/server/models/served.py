"""A model that answers requests, and what is known of one that does not."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from lacewing.errors import OptionError
from lacewing.server.models.names import Source
from lacewing.server.models.setup import Setup

if TYPE_CHECKING:
    from lacewing.api import Model
    from lacewing.options import Progress


class Runs(Protocol):
    """What the registry asks of a worker, which runs one model for all of its requests."""

    @property
    def fault(self) -> Exception | None:
        """Why the model cannot be used any more; None: it can."""

    def close(self) -> None:
        """End the thread and all requests; waits for it."""


@dataclass(eq=False)
class Served:
    """A model in memory. `created`: seconds since 1970; `worker` takes requests for it; `users`: requests that have it now."""

    name: str
    model: Model
    worker: Any
    created: int
    users: int = 0

    @property
    def sizes(self) -> tuple[int, int]:
        """Bytes of RAM and of a GPU that the model has for itself; none once another thread closes it."""
        try:
            return self.model.memory_bytes, self.model.device_bytes
        except OptionError:
            return 0, 0


class Entry(NamedTuple):
    """A model as lists show it. `status`: "loaded", "loading", "aside" (in memory, its weights not), "unloaded" or "failed";
    `stage` of loading or of a change: what is done, done so far, in all."""

    name: str
    created: int
    status: str
    problem: str = ""
    stage: tuple[str, int, int] = ("", 0, 0)
    setup: Setup = Setup()
    served: Served | None = None
    changing: bool = False
    leaves_in: float | None = None  # seconds in which it leaves the memory, if nobody asks for it; None: it stays


@dataclass
class Counts:
    """Since the server began: models that were loaded, could not be, were put aside, and left the memory."""

    loads: int = 0
    failures: int = 0
    asides: int = 0
    unloads: int = 0
    load_seconds: float = 0.0


@dataclass(eq=False)
class Change:
    """Something that is done with a slot, perhaps beside others: it comes, `leaves`, or gets another setup. `given_up`: nobody
    wants that any more."""

    slot: Slot
    leaves: bool = False
    given_up: bool = False


@dataclass(eq=False)
class Slot:
    """A model of the registry, in memory or not. Of the event loop's thread only.

    `users`: requests that have it now. `leaving`: how many want it out of the memory; it takes no new requests before it is back.
    `aside`: its weights left the memory, what was run before is kept. `lock`: of whoever changes or closes what is served.
    """

    source: Source
    served: Served | None = None
    task: asyncio.Task[None] | None = None  # that brings it into memory
    users: int = 0
    lost: bool = False  # it was in memory and cannot be used any more
    left_at: float = field(default_factory=time.monotonic)
    leaving: int = 0
    aside: bool = False
    was: str = "lazy"  # the residency before it was put aside
    problem: str = ""  # why it could not be loaded, or was lost
    tries: int = 0  # in vain, one after the other
    retry_at: float = 0.0
    stage: tuple[str, int, int] = ("", 0, 0)  # of loading: what, done, in all
    kept: tuple[list[int], bytes] | None = None  # ids and state of one that left a GPU
    listeners: list[Progress] = field(default_factory=list)
    setup: Setup = field(default_factory=Setup)
    changes: list[Change] = field(default_factory=list)  # under way; it can be used meanwhile, unless it is leaving
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    keep: float | None = None  # seconds that it stays without a request; None: as the server says

    @property
    def entry(self) -> Entry:
        """As it is now."""
        source = self.source
        return Entry(
            source.name, source.created, self.status, self.problem, self.stage, self.setup, self.served, bool(self.changes)
        )

    @property
    def ready(self) -> bool:
        """Whether it can take a request now."""
        return self.served is not None and not (self.leaving or self.aside or self.lost) and self.served.worker.fault is None

    @property
    def status(self) -> str:
        if self.task is not None:
            return "loading"
        if self.served is None:
            return "failed" if self.problem else "unloaded"
        return "failed" if self.lost or self.served.worker.fault is not None else "aside" if self.aside else "loaded"

    def begin(self, leaves: bool = False) -> Change:
        """Something that is done with it from now on; who began it removes it from `changes`."""
        self.changes.append(Change(self, leaves))
        return self.changes[-1]

    def forget(self) -> None:
        """Nobody wants it any more: what went wrong with it is of no matter, and it is not to come back by itself."""
        self.lost, self.problem, self.tries, self.retry_at = False, "", 0, 0.0

    def report(self, what: str, done: int, total: int) -> None:
        """To all that wait for it."""
        self.stage = what, done, total
        for each in list(self.listeners):
            each(what, done, total)
