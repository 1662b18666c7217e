"""A model that says what a test wants, as far as a constraint lets it; and vocabularies with marks of thoughts."""

from __future__ import annotations

import numpy as np

from lacewing.engine.constraint import Constraint
from lacewing.text.tokenizer import Tokenizer
from tests.text.vocabularies import CONTROL, byte_level, tokenizer

HARMONY = ("<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|return|>", "<|call|>")
TAGS = ("<think>", "</think>")


def tokenizer_with(*marks: str) -> Tokenizer:
    """Bytes, and control tokens."""
    metadata = byte_level()
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    metadata["tokenizer.ggml.tokens"] = [*tokens, *marks]
    metadata["tokenizer.ggml.token_type"] = np.array([*types, *[CONTROL] * len(marks)], np.int32)
    return tokenizer(metadata)


def say(tokenizer: Tokenizer, constraint: Constraint, text: str, most: int = 400) -> str:
    """What is said if a model wants to say `text`: a token that may not come next is left out, and what is forced comes before."""
    wanted, said = [*tokenizer.encode_markup(text)], list[int]()
    while len(said) < most and not constraint.stopped():
        mask = constraint.mask()
        allowed = None if mask is None else {int(i) for i in np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))}
        if allowed is not None and len(allowed) == 1 and (not wanted or wanted[0] not in allowed):
            token = allowed.pop()
        else:
            while wanted and allowed is not None and wanted[0] not in allowed:
                wanted.pop(0)
            if not wanted:
                break
            token = wanted.pop(0)
        if token in tokenizer.stop_ids:
            break
        assert constraint.accept(token), tokenizer.decode([token], special=True)
        said.append(token)
    return tokenizer.decode(said, special=True)


class Spelling:
    """A constraint that allows one text, and then the end."""

    def __init__(self, tokenizer, text):
        self.left, self.stops, self.size = tokenizer.encode_markup(text), tokenizer.stop_ids, tokenizer.vocab_size

    def mask(self):
        bits = np.zeros(-(-self.size // 32), np.uint32)
        for token in self.left[:1] or self.stops:
            bits[token // 32] |= np.uint32(1 << token % 32)
        return bits

    def accept(self, token):
        if not self.left:
            return token in self.stops
        return token == self.left.pop(0)

    def stopped(self):
        return not self.left
