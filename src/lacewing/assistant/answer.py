"""An answer, piece by piece, for whoever iterates it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lacewing.assistant.deltas import Delta
from lacewing.errors import LacewingError

if TYPE_CHECKING:
    from lacewing.assistant.decoder import AnswerDecoder
    from lacewing.engine.sampling import Token
    from lacewing.engine.stats import Stats
    from lacewing.engine.stream import Stream


class Answer(Iterator[Delta]):
    """Deltas as they come: strings of visible text, with the thoughts and tool calls beside it; see `Delta`.

    Afterwards `finish_reason` is "stop", "length", "tool_calls", "cancelled", or "repetition" if `Sampling.repeat_guard` ended it.
    `tokens`, `stats` and `message`, the answer as the next turn of the conversation takes it, grow with the text.
    """

    def __init__(self, stream: Stream, decoder: AnswerDecoder):
        self.finish_reason: str | None = None
        self.tokens: list[Token] = []
        self._stream, self._decoder = stream, decoder
        self._ready: deque[Delta] = deque()
        self._closed = False
        self._error: LacewingError | None = None

    @property
    def stats(self) -> Stats:
        return self._stream.stats

    @property
    def message(self) -> dict[str, Any]:
        """With "role" and "content", and "reasoning_content" and "tool_calls" where there are any."""
        return self._decoder.message

    def __repr__(self) -> str:
        return f"<Answer, {len(self.tokens)} tokens, {self.finish_reason or 'not finished'}>"

    def __next__(self) -> Delta:
        while not self._ready and not self._closed:
            if self._error is not None:
                error, self._error = self._error, None
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
        decoder = self._decoder
        try:
            token = next(self._stream, None)
        except BaseException:
            self._closed = True
            raise
        if token is not None:
            self.tokens.append(token)
            self._ready += decoder.push(token)
            if decoder.ended is None:
                return
            try:
                self._stream.end(decoder.ended)
            except LacewingError as error:  # told after what came before it
                self._error = error
                return
        self._ready += decoder.finish(self._stream.finish_reason or "stop")
        if not self._closed:
            self.finish_reason = decoder.finish_reason
