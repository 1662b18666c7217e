"""Messages to a stream of text: template, tokenizer and engine in a row. Shared by the chat and the API."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lacewing.engine.engine import Cancelled, Engine, common_prefix
from lacewing.errors import TemplateError

if TYPE_CHECKING:
    from lacewing.engine.sampling import Token
    from lacewing.engine.stats import Stats
    from lacewing.options import Progress, Sampling
    from lacewing.text.template import ChatTemplate
    from lacewing.text.tokenizer import Tokenizer

Message = Mapping[str, Any]

MARKED = 4  # earlier messages of the user at whose ends a windowed or recurrent model can resume, the newest


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


class Assistant:
    """Answers conversations with one engine. The engine's cached prefix makes the next turn of a conversation cheap."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, template: ChatTemplate):
        self.engine, self.tokenizer, self.template = engine, tokenizer, template

    def reply(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        cancelled: Cancelled | None = None,
        progress: Progress | None = None,
    ) -> TextStream:
        """The answer to `messages`, each with "role" and "content". Raises TemplateError, ContextOverflowError."""
        if isinstance(messages, Sequence) and not len(messages):
            raise TemplateError("the conversation is empty: it needs at least one message")
        ids = self.template.encode(messages, self.tokenizer)
        system = list(itertools.takewhile(lambda each: each.get("role") == "system", messages))
        ends = [place + 1 for place, each in enumerate(messages) if each.get("role") == "user"][-1 - MARKED : -1]
        beginnings = [system, *(messages[:end] for end in ends)]  # the end of the last one is that of the prompt
        shared = shared_prefixes(self.engine, self.template, self.tokenizer, beginnings, ids)
        return TextStream(self.engine, self.tokenizer, ids, sampling, cancelled, progress, shared=shared)


def shared_prefixes(
    engine: Engine,
    template: ChatTemplate,
    tokenizer: Tokenizer,
    beginnings: Sequence[Sequence[Message]],
    ids: Sequence[int],
    **options: Any,
) -> tuple[int, ...]:
    """How many of a prompt's ids are due to each beginning of its conversation; nothing if the engine finds any prefix."""
    found = set()
    for begun in beginnings if engine.needs_marks else ():
        if not begun:
            continue
        if begun[-1].get("role") == "system":
            # a message of the user stands behind them, which many templates want, and into which some write the system's
            begun = [*begun, {"role": "user", "content": ""}]
        try:
            found.add(common_prefix(template.encode(begun, tokenizer, add_generation_prompt=False, **options), ids))
        except TemplateError:
            continue
    return tuple(sorted(found))
