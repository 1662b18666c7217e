"""Token ids to text, piece by piece, never breaking a character."""

from __future__ import annotations

import codecs

from lacewing.text.vocabulary import TokenType, Vocabulary


class StreamDecoder:
    """Turns ids into text as they come. The concatenation of all `push` results and `flush` is the decoded whole.

    Bytes of a character that is not complete yet are held back; bytes that can never become one give U+FFFD.
    `strip`: drop one leading space of the first text, which the encoder of some vocabularies added.
    """

    def __init__(self, vocabulary: Vocabulary, *, strip: bool, special: bool):
        self._vocabulary, self._strip, self._special = vocabulary, strip, special
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The text that this id completes; often "", when it ends within a character."""
        data = self._vocabulary.bytes_of(token, self._special)
        if self._strip and data:
            self._strip = False
            if self._vocabulary.types[token] == TokenType.NORMAL:  # before a user-defined token no space was put
                data = data.removeprefix(b" ")
        return self._utf8.decode(data)

    def flush(self) -> str:
        """What is held back at the end: "" or U+FFFD for a character that never became complete."""
        rest = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        return rest
