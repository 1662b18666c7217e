"""What comes of the answers to one request, between the worker that delivers it and the task that writes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lacewing.assistant.deltas import Delta
from lacewing.server.worker import End

if TYPE_CHECKING:
    from lacewing.assistant.decoder import AnswerDecoder
    from lacewing.engine.sampling import Token
    from lacewing.engine.stats import Stats
    from lacewing.server.events import Observers, Record
    from lacewing.server.queue import Place
    from lacewing.server.worker import Ticket

_MANY = 256  # deltas of a client that is slow, after which neighbours become one


class Choice:
    """One answer: what has come of it and was not taken yet, and how it ended. `prompt`: which of the request's it answers."""

    def __init__(self, feed: Feed, index: int, prompt: int, decoder: AnswerDecoder):
        self.index, self.prompt, self.decoder = index, prompt, decoder
        self.ticket: Ticket | None = None
        self.place: Place | None = None
        self.end: End | None = None
        self.reasoning_tokens = 0
        self.written = False  # something of it was
        self.begun = asyncio.Event()  # its prompt has been read
        self._begun = False  # as `begun` says, without a call
        self._feed = feed
        self._deltas: list[Delta] = []

    @property
    def stats(self) -> Stats | None:
        """What it cost so far; None: it has not begun."""
        return None if self.ticket is None else self.ticket.handle.stats

    def push(self, deltas: Sequence[Delta], end: End | None) -> None:
        """From the worker, in the event loop's thread; each function more on this path costs a few us, as it is in no cache."""
        count, feed = 0, self._feed
        for delta in deltas:
            count += len(delta.tokens)
            if delta.reasoning:
                self.reasoning_tokens += len(delta.tokens)
        if self._deltas:
            self._deltas += deltas
            if len(self._deltas) > _MANY:
                self._deltas = merged(self._deltas)
        else:
            self._deltas = list(deltas)
        if end is not None:
            self.end = end
            if self.place is not None:
                self.place.leave()
        if not self._begun:
            self._begun = True
            self.begun.set()
        if count:
            feed.observers.tokens(feed.record, count)
        if feed.at_once is None or end is not None:
            return feed.moved(self)
        try:
            if not feed.at_once(self):
                feed.moved(self)
        except Exception as error:  # whoever waits has it, not the loop that brings what came of others
            feed.wake(error)

    def take(self) -> list[Delta]:
        """What has come since, in as few pieces as there are kinds of it."""
        deltas, self._deltas = self._deltas, []
        return merged(deltas) if len(deltas) > 1 else deltas

    def fail(self, error: Exception) -> None:
        """It could not begin."""
        self.push((), End(None, None, error))

    def cancel(self) -> None:
        """Nobody wants the rest."""
        if self.ticket is not None and self.end is None:
            self.ticket.cancel()


class Feed:
    """The choices of one request. `whole`: nobody looks before one of them has ended.

    `at_once`: of whoever waits, called instead of waking him, which costs more than what is to be done; False: it could not do it.
    """

    def __init__(self, observers: Observers, record: Record, whole: bool):
        self.choices: list[Choice] = []
        self._whole = whole
        self.observers, self.record = observers, record
        self.at_once: Callable[[Choice], bool] | None = None
        self._ready: set[Choice] = set()
        self._waiter: asyncio.Future[None] | None = None

    def moved(self, choice: Choice) -> None:
        """Something came that was not dealt with at once."""
        if choice.end is not None or not self._whole:
            self._ready.add(choice)
            self.wake()

    def wake(self, error: Exception | None = None) -> None:
        """Whoever waits, to go on or with an error. What comes before he has gone on waits behind what is there."""
        waiter, self._waiter, self.at_once = self._waiter, None, None
        if waiter is None or waiter.done():
            return
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)

    async def next(self, at_once: Callable[[Choice], bool] | None = None) -> list[Choice]:
        """The choices of which something came; waits for one. `at_once`: until then."""
        if not self._ready:
            self._waiter, self.at_once = asyncio.get_running_loop().create_future(), at_once
            try:
                await self._waiter
            finally:
                self.at_once = None  # also where the wait was cancelled
        ready, self._ready = self._ready, set()
        return sorted(ready, key=lambda choice: choice.index) if len(ready) > 1 else list(ready)

    def cancel(self) -> None:
        """Nobody wants the rest of any."""
        for choice in self.choices:
            choice.cancel()


def merged(deltas: Sequence[Delta]) -> list[Delta]:
    """Neighbours of one kind, text or thoughts, as one."""
    found: list[Delta] = []
    for at in _runs(deltas):
        first = deltas[at.start]
        if at.stop - at.start == 1:
            found.append(first)
            continue
        some = deltas[at]
        tokens: tuple[Token, ...] = tuple(token for each in some for token in each.tokens)
        found.append(Delta("".join(some), "".join(each.reasoning for each in some), (), tokens))
    return found


def _runs(deltas: Sequence[Delta]) -> list[slice]:
    """Where text, or where thoughts stand in a row; pieces of calls stand alone."""
    runs: list[slice] = []
    kind = ""
    for at, delta in enumerate(deltas):
        now = "call" if delta.calls else "thoughts" if delta.reasoning else "text" if delta else "mark"
        if runs and now == kind != "call":
            runs[-1] = slice(runs[-1].start, at + 1)
        else:
            runs.append(slice(at, at + 1))
        kind = now
    return runs
