"""Log-probabilities as OpenAI writes them. A token is told with its own bytes; nothing is told of tokens without any text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lacewing.assistant.deltas import Delta
    from lacewing.engine.sampling import Token
    from lacewing.text.tokenizer import Tokenizer

FLOOR = -9999.0  # what OpenAI says of a token that could not come at all


def chat_logprobs(tokenizer: Tokenizer, deltas: Iterable[Delta], top: int) -> dict[str, Any] | None:
    """{"content": [...]} of the tokens of the visible text; null where there are none."""
    content = [_entry(tokenizer, token, top) for delta in deltas if delta for token in delta.tokens]
    return {"content": content, "refusal": None} if content else None


def _entry(tokenizer: Tokenizer, token: Token, top: int) -> dict[str, Any]:
    others = [_one(tokenizer, id, logprob) for id, logprob in token.alternatives[:top]]
    return {**_one(tokenizer, token.id, token.logprob), "top_logprobs": others}


def _one(tokenizer: Tokenizer, id: int, logprob: float | None) -> dict[str, Any]:
    data = tokenizer.token_bytes(id)
    value = FLOOR if logprob is None or logprob < FLOOR else logprob
    return {"token": data.decode("utf-8", "replace"), "logprob": value, "bytes": list(data)}


def text_logprobs(tokenizer: Tokenizer, tokens: Sequence[Token], top: int, offset: int) -> tuple[dict[str, Any], int]:
    """As completions have them: parallel lists, offsets in characters from the start of the text; and where the next one begins.

    A token without a log-probability, such as the first of a prompt, has null.
    """
    found: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for token in tokens:
        spelling = tokenizer.token_bytes(token.id).decode("utf-8", "replace")
        known = token.logprob is not None
        found["tokens"].append(spelling)
        found["token_logprobs"].append(max(token.logprob, FLOOR) if token.logprob is not None else None)
        found["top_logprobs"].append(_likeliest(tokenizer, token, top) if known else None)
        found["text_offset"].append(offset)
        offset += len(spelling)
    return found, offset


def _likeliest(tokenizer: Tokenizer, token: Token, top: int) -> dict[str, float]:
    """Spelling to log-probability; of two tokens spelt alike the likelier one counts."""
    likeliest: dict[str, float] = {}
    for id, logprob in token.alternatives[:top]:
        likeliest.setdefault(tokenizer.token_bytes(id).decode("utf-8", "replace"), max(logprob, FLOOR))
    return likeliest
