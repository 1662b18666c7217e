"""What happens to requests, for metrics and logs: observers are told, and the rest of the server knows none of them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Record:
    """One HTTP request that asks for an answer. Times are of `time.perf_counter`; counts are tokens, of all its choices."""

    id: str
    endpoint: str  # the path
    model: str = ""
    streamed: bool = False
    began: float = field(default_factory=time.perf_counter)
    loaded: float | None = None  # when its model was in memory
    started: float | None = None  # when the queue let it through
    first_token: float | None = None
    last_token: float | None = None
    ended: float | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    finish_reasons: list[str] = field(default_factory=list)
    status: int = 200
    error: BaseException | None = None


class Observer:
    """Told in the thread of the event loop; must not block it. Whoever is interested in less overrides less."""

    def received(self, record: Record) -> None:
        """A request was read and is valid."""

    def started(self, record: Record) -> None:
        """The queue let it through."""

    def tokens(self, record: Record, count: int, gap: float | None) -> None:
        """So many tokens came, `gap` seconds after those before; None: they are the first."""

    def finished(self, record: Record) -> None:
        """It is over, with or without an error."""


class Observers(Observer):
    """Several as one. One that fails is a fault of ours, and is not hidden."""

    def __init__(self, observers: tuple[Observer, ...] = ()):
        self._each = observers
        self._counting = [each for each in observers if type(each).tokens is not Observer.tokens]  # asked once a token

    def received(self, record: Record) -> None:
        for each in self._each:
            each.received(record)

    def started(self, record: Record) -> None:
        record.started = time.perf_counter()
        for each in self._each:
            each.started(record)

    def tokens(self, record: Record, count: int, gap: float | None = None) -> None:
        now = time.perf_counter()
        gap = None if record.last_token is None else now - record.last_token
        record.last_token = now
        if record.first_token is None:
            record.first_token = now
        for each in self._counting:
            each.tokens(record, count, gap)

    def finished(self, record: Record) -> None:
        record.ended = time.perf_counter()
        for each in self._each:
            each.finished(record)
