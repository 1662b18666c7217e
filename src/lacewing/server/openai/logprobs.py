"""Log-probabilities as OpenAI writes them. A token is told with its own bytes, and only if the text shows it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from lacewing.assistant.probabilities import TokenText, TokenTexts

if TYPE_CHECKING:
    from lacewing.assistant.deltas import Delta
    from lacewing.engine.sampling import Token
    from lacewing.text.tokenizer import Tokenizer

FLOOR = -9999.0  # what OpenAI says of a token that could not come at all


class Logprobs:
    """Of one answer. `top`: likeliest tokens beside each one; `continuation`: it follows a text, as `AnswerDecoder` has it."""

    def __init__(self, tokenizer: Tokenizer, top: int, *, continuation: bool):
        self._texts, self._top = TokenTexts(tokenizer, continuation=continuation), top

    def chat(self, deltas: Iterable[Delta]) -> dict[str, Any] | None:
        """{"content": [...]} of the tokens of the visible text; null where there are none."""
        content = []
        for delta in deltas:
            told = [self._texts.push(token) for token in delta.tokens]
            content += [self._entry(each) for each in told if delta and each.shown]
        return {"content": content, "refusal": None} if content else None

    def _entry(self, token: TokenText) -> dict[str, Any]:
        return {**_one(token), "top_logprobs": [_one(each) for each in token.alternatives[: self._top]]}

    def native(self, tokens: Sequence[Token]) -> list[dict[str, Any]]:
        """As llama-server's own API has them, with ids."""
        told = [self._texts.push(token) for token in tokens]
        return [
            {**_one(each), "id": each.id, "top_logprobs": [{**_one(one), "id": one.id} for one in each.alternatives[: self._top]]}
            for each in told
        ]

    def text(self, tokens: Sequence[Token], offset: int) -> dict[str, Any]:
        """As completions have them: parallel lists; offsets count characters of the text, `offset` of them before the answer.

        A token without a log-probability, such as the first of a prompt, has null.
        """
        told = [self._texts.push(token) for token in tokens]
        return {
            "tokens": [each.label for each in told],
            "token_logprobs": [None if each.logprob is None else max(each.logprob, FLOOR) for each in told],
            "top_logprobs": [None if each.logprob is None else self._likeliest(each) for each in told],
            "text_offset": [offset + each.offset for each in told],
        }

    def _likeliest(self, token: TokenText) -> dict[str, float]:
        """Spelling to log-probability; of two tokens spelt alike the likelier one counts."""
        likeliest: dict[str, float] = {}
        for each in token.alternatives[: self._top]:
            likeliest.setdefault(each.label, max(each.logprob or 0.0, FLOOR))
        return likeliest


def _one(token: TokenText) -> dict[str, Any]:
    logprob = FLOOR if token.logprob is None else max(token.logprob, FLOOR)
    return {"token": token.text, "logprob": logprob, "bytes": list(token.data)}
