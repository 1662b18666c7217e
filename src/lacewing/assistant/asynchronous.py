"""Answers for event loops: no thread waits for one. All of a model share its driver, and a loop is woken once a run."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Self

from lacewing.assistant.answer import Received
from lacewing.assistant.deltas import Delta
from lacewing.assistant.driver import Driver, Handle
from lacewing.errors import OptionError

if TYPE_CHECKING:
    from lacewing.assistant.prompt import Prompt
    from lacewing.engine.sampling import Token
    from lacewing.engine.stats import Stats
    from lacewing.options import Sampling

End = tuple["str | None", "Exception | None"]  # a reason, or an error


class Mailbox:
    """Brings what a driver's thread delivers into one event loop, which it wakes once for all that has come meanwhile."""

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self._loop = weakref.ref(loop)
        self._letters: deque[tuple[weakref.ref[AsyncAnswer], list[Token], End | None]] = deque()
        self._woken = False

    def put(self, to: weakref.ref[AsyncAnswer], tokens: list[Token], end: End | None = None) -> None:
        """Raises RuntimeError for a loop that is closed."""
        loop = self._loop()
        if loop is None:
            raise RuntimeError("the event loop is gone")
        self._letters.append((to, tokens, end))
        if not self._woken:
            self._woken = True
            loop.call_soon_threadsafe(self._open)

    def _open(self) -> None:
        self._woken = False  # first: what is put from now on wakes the loop again
        while self._letters:
            to, tokens, end = self._letters.popleft()
            answer = to()
            if answer is not None:
                answer._deliver(tokens, end)


class AsyncAnswer(Received, AsyncIterator[Delta]):
    """`Answer` for `async for`. Nothing happens before it is iterated; whoever is cancelled while waiting for a piece cancels it.

    `prepare` makes the prompt, in a thread of the loop's pool; what it raises comes with the first piece.
    """

    def __init__(self, driver: Driver, mailbox: Callable[[], Mailbox], prepare: Callable[[], tuple[Prompt, Sampling]]):
        super().__init__()
        self._driver, self._mailbox, self._prepare = driver, mailbox, prepare
        self._handle: Handle | None = None
        self._error: Exception | None = None
        self._begun = self._closed = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def stats(self) -> Stats:
        """They grow with the text."""
        from lacewing.engine.stats import Stats

        return self._handle.stats if self._handle is not None else Stats()

    @property
    def message(self) -> dict[str, Any]:
        return super().message if self._begun else {"role": "assistant", "content": ""}

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delta:
        if self._waiter is not None:
            raise OptionError("somebody waits for the next piece of this answer already")
        try:
            if not self._begun and not self._closed:
                await self._begin()
            while not (self._ready or self._closed or self._error or self.finish_reason):
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
        except BaseException:
            self._waiter = None
            self.close()
            raise
        if self._ready and not self._closed:
            return self._ready.popleft()
        if self._error is not None and not self._closed:
            self._closed = True
            raise self._error
        raise StopAsyncIteration

    def close(self) -> None:
        """Stop here: the request ends before the next run of the engine."""
        self._closed = True
        if self._handle is not None:
            self._handle.cancel()
        self.finish_reason = self.finish_reason or "cancelled"
        self._wake()

    async def aclose(self) -> None:
        """As `close`."""
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        handle = getattr(self, "_handle", None)
        if handle is not None:
            handle.cancel()

    async def _begin(self) -> None:
        prompt, sampling = await asyncio.to_thread(self._prepare)
        if self._closed:
            return
        self._decoder = prompt.decode(sampling)
        self._begun = True
        me, box = weakref.ref(self), self._mailbox()
        self._handle = self._driver.submit(
            prompt.request(sampling), lambda tokens: box.put(me, tokens), lambda reason, error: box.put(me, [], (reason, error))
        )

    def _deliver(self, tokens: list[Token], end: End | None) -> None:
        if self._error is not None or self.finish_reason is not None:
            return
        try:
            ended = self._receive(tokens)
            if ended is not None and self._handle is not None:
                self._handle.end(ended)
            if end is not None and end[1] is not None and ended is None:
                self._error = end[1]
            elif end is not None or ended is not None:
                self._finish(ended or (end or (None, None))[0])
        except Exception as error:  # such as of a parser: this answer alone fails
            self._error = error
            if self._handle is not None:
                self._handle.cancel()
        if self._ready or self._error or self.finish_reason:
            self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class AsyncAnswers:
    """Makes the answers of one engine. `driver`: who runs them."""

    def __init__(self, driver: Driver):
        self.driver = driver
        self._boxes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Mailbox] = weakref.WeakKeyDictionary()

    def answer(self, prepare: Callable[[], tuple[Prompt, Sampling]]) -> AsyncAnswer:
        """As for `AsyncAnswer`."""
        return AsyncAnswer(self.driver, self._mailbox, prepare)

    def _mailbox(self) -> Mailbox:
        """Of the loop that runs."""
        loop = asyncio.get_running_loop()
        return self._boxes.setdefault(loop, Mailbox(loop))


async def texts(answers: list[AsyncAnswer]) -> list[str]:
    """The visible texts of answers that run at the same time. If one fails, or whoever waits is cancelled, all are."""
    try:
        return list(await asyncio.gather(*(_text(answer) for answer in answers)))
    except BaseException:
        for answer in answers:
            answer.close()
        raise


async def _text(answer: AsyncAnswer) -> str:
    return "".join([delta async for delta in answer])
