"""Tokens of the engine to pieces of text."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from lacewing.engine.engine import Cancelled, Engine

if TYPE_CHECKING:
    from lacewing.engine.sampling import Token
    from lacewing.engine.stats import Stats
    from lacewing.options import Progress, Sampling
    from lacewing.text.tokenizer import Tokenizer


class TextStream(Iterator[str]):
    """Pieces of text as they come, whole characters only, without stop strings.

    Afterwards `finish_reason` is "stop", "length", "cancelled", or "repetition" if `Sampling.repeat_guard` ended it.
    `tokens` grow with the text, `stats` as well.
    `stop_ids`: other than the tokenizer's; `stops`: strings besides those of `sampling`, such as a template's; `visible`: control
    tokens that the text shows all the same, such as marks of channels; `shared`: lengths of prefixes of `ids` that other prompts
    will share.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        ids: Sequence[int],
        sampling: Sampling,
        cancelled: Cancelled | None = None,
        progress: Progress | None = None,
        continuation: bool = False,
        stop_ids: frozenset[int] | None = None,
        visible: Mapping[int, str] | None = None,
        stops: Sequence[str] = (),
        shared: Sequence[int] = (),
    ):
        self.finish_reason: str | None = None
        self.tokens: list[Token] = []
        self._closed = False
        ends = tokenizer.stop_ids if stop_ids is None else stop_ids
        self._generation = engine.generate(ids, sampling, ends, cancelled, progress, shared)
        self._visible = visible or {}
        self._pieces = self._text(tokenizer, (*sampling.stop, *stops), continuation, sampling.repeat_guard)

    @property
    def stats(self) -> Stats:
        return self._generation.stats

    def __next__(self) -> str:
        if self._closed:
            raise StopIteration
        return next(self._pieces)

    def __repr__(self) -> str:
        return f"<TextStream, {len(self.tokens)} tokens, {self.finish_reason or 'not finished'}>"

    def close(self) -> None:
        """Stop here, whichever thread waits for a piece."""
        self._generation.close()
        self._closed = True
        self.finish_reason = self.finish_reason or "cancelled"

    def _text(self, tokenizer: Tokenizer, stops: Sequence[str], continuation: bool, limit: int) -> Generator[str, None, None]:
        from lacewing.text.streaming import RepeatGuard, StopStrings

        decoder, guard = tokenizer.stream(continuation=continuation), StopStrings(stops)
        repeats = RepeatGuard(limit, tokenizer.decode)
        for token in self._generation:
            self.tokens.append(token)
            text = guard.push(decoder.push(token.id) + self._visible.get(token.id, ""))
            if text:
                yield text
            if guard.hit is not None:
                self._generation.end("stop")
                self.finish_reason = "stop"
                return
            if repeats.push(token.id):
                self._generation.end("repetition")
                break
        rest = guard.push(decoder.flush()) + guard.flush()
        self.finish_reason = "stop" if guard.hit is not None else self._generation.finish_reason
        if rest:
            yield rest
