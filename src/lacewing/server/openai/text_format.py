"""Completions as OpenAI writes them: events of a stream, or one object. Events are put together by hand, one every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lacewing.server.openai.logprobs import Logprobs
from lacewing.server.openai.types import Writer, dumps, reason, text

if TYPE_CHECKING:
    from lacewing.assistant.deltas import Delta
    from lacewing.engine.sampling import Token
    from lacewing.server.feed import Choice


class TextWriter(Writer):
    """See `Writer`. `echoed`: the prompts, where the answers are to begin with them."""

    prefix, chunk, object = "cmpl-", "text_completion", "text_completion"
    echoed: Sequence[str] | None = None

    def events(self, choice: Choice, deltas: Sequence[Delta]) -> bytes:
        index, parts = choice.index, []
        if not choice.written:
            choice.written = True
            if self.echoed is not None:
                logprobs = "null" if self.top is None else dumps(self._of_prompt(choice))
                parts.append(self.event(index, f'"text":{text(self._echo(choice))}', logprobs))
        for delta in deltas:
            piece = delta.reasoning or str(delta)
            if piece:
                logprobs = "null" if self.top is None else dumps(self._of(choice, delta.tokens))
                parts.append(self.event(index, f'"text":{text(piece)}', logprobs, more=self.each(choice)))
        if choice.end is not None:
            parts.append(self.event(index, '"text":""', finish=text(reason(choice) or "stop"), more=self.last(choice)))
        return "".join(parts).encode()

    def answer(self, choice: Choice) -> dict[str, Any]:
        written = self._echo(choice) + choice.decoder.message["content"]
        logprobs: dict[str, Any] | None = None
        if self.top is not None:
            parts = [self._of_prompt(choice)] if self.echoed is not None else []
            parts.append(self._of(choice, [token for delta in choice.take() for token in delta.tokens]))
            logprobs = {name: [each for part in parts for each in part[name]] for name in parts[0]}
        return {"index": choice.index, "text": written, "logprobs": logprobs, "finish_reason": reason(choice)}

    def _echo(self, choice: Choice) -> str:
        return "" if self.echoed is None else self.echoed[choice.prompt]

    def _of_prompt(self, choice: Choice) -> dict[str, Any]:
        """Of the tokens of the prompt, which is a text of its own."""
        tokens: Sequence[Token] = () if choice.ticket is None else choice.ticket.handle.prompt
        return Logprobs(self.tokenizer, self.top or 0, continuation=False).text(tokens, 0)

    def _of(self, choice: Choice, tokens: Sequence[Token]) -> dict[str, Any]:
        found = self.logprobs.get(choice.index)
        if found is None:
            found = self.logprobs[choice.index] = Logprobs(self.tokenizer, self.top or 0, continuation=True)
        return found.text(tokens, len(self._echo(choice)))
