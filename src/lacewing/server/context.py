"""What all requests of a server share, and what is expected of those who make it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from lacewing.server.events import Observers
from lacewing.server.models.experts import ExpertWatch
from lacewing.server.queue import WaitingRoom

if TYPE_CHECKING:
    from lacewing.api import Model
    from lacewing.options import Progress
    from lacewing.server.models.downloads import Downloads
    from lacewing.server.models.facts import Facts
    from lacewing.server.models.news import News
    from lacewing.server.models.served import Entry
    from lacewing.server.worker import Worker


class Served(Protocol):
    """A model in memory, and who runs its requests. `created`: seconds since 1970."""

    name: str
    model: Model
    worker: Worker
    created: int


class Health(Protocol):
    """`status` is "ok" where requests can be answered; `message` says more."""

    @property
    def status(self) -> str: ...
    @property
    def message(self) -> str: ...


class Registry(Protocol):
    """The models of a server. `use` loads one where it has to, and keeps it for as long as it is entered; see `models.registry`."""

    news: News
    downloads: Downloads

    def use(self, name: str | None, progress: Progress | None = None) -> AbstractAsyncContextManager[Served]: ...

    def names(self) -> Sequence[Entry]: ...

    def entry(self, name: str | None) -> Entry: ...

    def facts(self, entry: Entry) -> Facts | None: ...

    async def load(self, name: str | None, given: Mapping[str, Any], force: bool = False) -> list[str]: ...

    async def unload(self, name: str | None, force: bool = False) -> bool: ...

    def keep(self, name: str | None, seconds: float | None) -> None: ...

    @property
    def default(self) -> str | None: ...
    @property
    def health(self) -> Health: ...


class Limits(Protocol):
    """What of `ServerOptions` is read here; see there. Times are seconds."""

    @property
    def queue(self) -> int: ...
    @property
    def queue_seconds(self) -> float: ...
    @property
    def request_seconds(self) -> float | None: ...
    @property
    def ping_seconds(self) -> float: ...
    @property
    def write_seconds(self) -> float: ...


@dataclass(frozen=True)
class Change:
    """Of the model of that name. The task gives what has changed, or the error."""

    model: str
    task: asyncio.Future[list[str] | BaseException]


@dataclass(frozen=True)
class Context:
    registry: Registry
    limits: Limits
    observers: Observers
    room: WaitingRoom = field(init=False)
    experts: ExpertWatch = field(default_factory=ExpertWatch)
    changes: dict[str, Change] = field(default_factory=dict)  # of models, by their ids, in the order of their beginning

    def __post_init__(self) -> None:
        object.__setattr__(self, "room", WaitingRoom(self.limits.queue))


def context_of(app: Any) -> Context:
    """Of a Starlette application that `create_app` made."""
    context: Context = app.state.context
    return context
