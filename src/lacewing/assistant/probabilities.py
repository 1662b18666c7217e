"""Tokens with their log-probabilities as text: which characters and bytes of an answer each of them has brought."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from lacewing.engine.sampling import Token
    from lacewing.text.tokenizer import Tokenizer


class TokenText(NamedTuple):
    """`data`: the bytes that it adds to the text, which often are no whole characters. A control token that the text does not show
    has the bytes of its spelling, and `shown` is False.

    `offset`: whole characters of the text before it. `alternatives`: likeliest first, each in place of this token.
    """

    id: int
    data: bytes
    shown: bool
    offset: int
    logprob: float | None
    alternatives: tuple[TokenText, ...] = ()

    @property
    def text(self) -> str:
        """For people: U+FFFD for what is no whole character."""
        return self.data.decode("utf-8", "replace")

    @property
    def label(self) -> str:
        """Different for different bytes: parts of characters are spelt `bytes:\\xe2\\x80`, as OpenAI does."""
        try:
            return self.data.decode("utf-8")
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{value:02x}" for value in self.data)


class TokenTexts:
    """Takes the tokens of one text in their order. The joined bytes of those that are shown are the text.

    `continuation`: the text follows another, so its first space is its own; `special`: it shows control tokens.
    """

    def __init__(self, tokenizer: Tokenizer, *, continuation: bool = False, special: bool = False):
        self._tokenizer, self._offset = tokenizer, 0
        self._decoder = tokenizer.stream(special=special, continuation=continuation)

    def push(self, token: Token) -> TokenText:
        """Raises TokenizerError for an id outside the vocabulary."""
        others = tuple(self._spelt(each, logprob) for each, logprob in token.alternatives)
        found = self._spelt(token.id, token.logprob)._replace(alternatives=others)
        self._offset += len(self._decoder.push(token.id))
        return found

    def _spelt(self, token: int, logprob: float | None) -> TokenText:
        hidden = self._decoder.hides(token)
        data = self._tokenizer.token_bytes(token) if hidden else self._decoder.bytes_of(token)
        return TokenText(token, data, not hidden, self._offset, logprob)
