"""An answer, piece by piece, for whoever iterates it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lacewing.assistant.deltas import Delta
from lacewing.errors import LacewingError

if TYPE_CHECKING:
    from lacewing.assistant.decoder import AnswerDecoder
    from lacewing.engine.engine import Engine
    from lacewing.engine.sampling import Token
    from lacewing.engine.stats import Stats
    from lacewing.engine.stream import Stream


class Received:
    """What has come of an answer, and what of it has not been fetched yet.

    Afterwards `finish_reason` is "stop", "length", "tool_calls", "cancelled", or "repetition" if `Sampling.repeat_guard` ended it.
    `tokens` and `message`, the answer as the next turn of the conversation takes it, grow with the text.
    """

    _decoder: AnswerDecoder

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.tokens: list[Token] = []
        self._ready: deque[Delta] = deque()

    @property
    def message(self) -> dict[str, Any]:
        """With "role" and "content", and "reasoning_content" and "tool_calls" where there are any."""
        return self._decoder.message

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, {len(self.tokens)} tokens, {self.finish_reason or 'not finished'}>"

    def _receive(self, tokens: Iterable[Token]) -> str | None:
        """Decode tokens; why nothing more is wanted, if so. Tokens behind that are dropped."""
        decoder = self._decoder
        for token in tokens:
            if decoder.ended is not None:
                break
            self.tokens.append(token)
            self._ready += decoder.push(token)
        return decoder.ended

    def _finish(self, reason: str | None) -> None:
        """The rest, after the last token. `reason`: of the engine."""
        self._ready += self._decoder.finish(reason or "stop")
        self.finish_reason = self.finish_reason or self._decoder.finish_reason


class Answer(Received, Iterator[Delta]):
    """Deltas as they come: strings of visible text, with the thoughts and tool calls beside it; see `Delta` and `Received`."""

    def __init__(self, stream: Stream, decoder: AnswerDecoder):
        super().__init__()
        self._stream, self._decoder = stream, decoder
        self._closed = False
        self._error: LacewingError | None = None

    @property
    def stats(self) -> Stats:
        """They grow with the text."""
        return self._stream.stats

    def __next__(self) -> Delta:
        while not self._ready and not self._closed:
            if self._error is not None:
                error, self._error = self._error, None
                self._closed = True
                raise error
            if self.finish_reason is not None:
                break
            self._fetch()
        if self._closed or not self._ready:
            raise StopIteration
        return self._ready.popleft()

    def close(self) -> None:
        """Stop here, whichever thread waits for a piece."""
        self._closed = True
        self._stream.close()
        self.finish_reason = self.finish_reason or "cancelled"

    def _fetch(self) -> None:
        """What the next token brings."""
        try:
            token = next(self._stream, None)
        except BaseException:
            self._closed = True
            raise
        self._take(() if token is None else (token,), over=token is None)

    def poll(self) -> bool:
        """Decode what the engine has brought; whether there is something to fetch for ever after: it has ended, or failed."""
        stream = self._stream
        while not self._over and (tokens := stream.take()):
            self._take(tokens)
        if not self._over and stream.done:
            if isinstance(stream.error, LacewingError):
                self._error = stream.error
            elif stream.error is not None:
                raise stream.error
            else:
                self._take((), over=True)
        return self._over

    @property
    def _over(self) -> bool:
        return self._closed or self.finish_reason is not None or self._error is not None

    def _take(self, tokens: Sequence[Token], over: bool = False) -> None:
        ended = self._receive(tokens)
        if ended is not None:
            try:
                self._stream.end(ended)
            except LacewingError as error:  # told after what came before it
                self._error = error
                return
        if over or ended is not None:
            self._finish(self._stream.finish_reason)


def run_all(engine: Engine, answers: Sequence[Answer]) -> None:
    """Run answers to their ends, all at the same time; iterating them then costs nothing. If one fails, the others are ended.

    Raises what iterating the one that failed would.
    """
    left = list(answers)
    try:
        while left:
            engine.advance()
            left = [answer for answer in left if not answer.poll()]
            failed = next((answer for answer in answers if answer._error is not None), None)
            if failed is not None:
                raise failed._error or LacewingError()
    except BaseException:
        for answer in answers:
            answer.close()
        raise
