"""What a tokenizer is made of, whichever file it came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import tokenizers as hf

from lacewing.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class Parts:
    """The parts of a tokenizer.

    `build` makes the library's objects, which takes up to a second, so it runs at first use. The first object encodes the
    start of a text; a second one, where the two differ, encodes text after a control token.
    """

    kind: str  # "spm", "bpe", "gemma4", ...
    vocabulary: Vocabulary
    build: Callable[[], tuple[hf.Tokenizer, ...]]
    bos: int | None
    eos: int | None
    add_bos: bool
    stop_ids: frozenset[int]
    strip_first_space: bool = False  # decoding a whole text drops the space that encoding put in front
    left_strip: frozenset[int] = frozenset()  # control tokens that swallow the spaces before them
    right_strip: frozenset[int] = frozenset()  # ... and after them
