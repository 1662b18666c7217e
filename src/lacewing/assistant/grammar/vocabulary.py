"""A tokenizer as llguidance sees it: the bytes that each token adds to a text, exactly as they are decoded."""

from __future__ import annotations

import threading
from collections import OrderedDict
from types import ModuleType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from lacewing.errors import GrammarError, install_extra

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

    from lacewing.assistant.grammar.source import Grammar
    from lacewing.text.tokenizer import Tokenizer

_MARK = b"\xff"  # in front of the name of a control token, which no text has
_known: WeakKeyDictionary[Tokenizer, dict[int, GrammarVocabulary]] = WeakKeyDictionary()
_lock = threading.Lock()


def library() -> ModuleType:
    """llguidance. Raises GrammarError where it is missing."""
    try:
        import llguidance
    except ImportError:
        raise GrammarError(
            "JSON, schemas, regexes and grammars for answers need llguidance, which is not installed; "
            f"install the extra `grammar`: {install_extra('grammar')}"
        ) from None
    return llguidance


class GrammarVocabulary:
    """The tokens of a model with `size` logits.

    Behind them llguidance is told of 256 more, one for each byte, so that any text can be fed to a grammar, and of one that ends a
    text: which tokens end an answer is the request's affair. It holds no tokenizer: it lives as long as that one does.
    """

    def __init__(self, tokenizer: Tokenizer, size: int):
        self._library, self.size = library(), size
        self.words = -(-size // 32)  # of a mask
        self.all_words = -(-(size + 257) // 32)  # of one of llguidance's
        self.last = np.uint32((1 << (size % 32 or 32)) - 1)  # bits of the last word
        self.added = tokenizer.text_bytes()[:size]  # what each token adds to a text
        self.controls = [token for token in tokenizer.control_tokens.values() if token < size and not self.added[token]]
        self._names = [tokenizer.token_text(token).encode() for token in self.controls]
        self.strips_start = tokenizer.strips_start  # whether the first token of a text adds something else than it does later
        self._started = tokenizer.text_bytes(start=True)[:size] if self.strips_start else self.added
        self._views: dict[bool, LLTokenizer] = {}
        self.kept: OrderedDict[Grammar, Any] = OrderedDict()  # what was compiled last, for `compile_grammar`

    @classmethod
    def of(cls, tokenizer: Tokenizer, size: int) -> GrammarVocabulary:
        """The same one each time. Made once, which takes 0.2 to 1 s."""
        with _lock:
            made = _known.setdefault(tokenizer, {})
            if size not in made:
                made[size] = cls(tokenizer, size)
            return made[size]

    def byte(self, value: int) -> int:
        """The token that is a byte, for llguidance only."""
        return self.size + value

    def view(self, start: bool) -> LLTokenizer:
        """For the first token of a text, or later ones."""
        start = start and self.strips_start
        with _lock:
            if start not in self._views:
                self._views[start] = self._make(self._started if start else self.added)
            return self._views[start]

    def started(self, token: int) -> bytes | None:
        """What a token adds as the first that adds something; None for a control token, which adds nothing wherever it stands."""
        return self._started[token] if token < len(self.added) and self.added[token] else None

    def mask(self, matcher: LLMatcher) -> np.ndarray:
        """The tokens of the model that may come next, uint32 (words,)."""
        whole = np.empty(self.all_words, np.uint32)
        matcher.unsafe_compute_mask_ptr(whole.ctypes.data, whole.nbytes)
        mask = whole[: self.words]
        mask[-1] &= self.last
        return mask

    def _make(self, added: list[bytes]) -> LLTokenizer:
        tokens = [b"" if data.startswith(_MARK) else data for data in added] + [b""] * (self.size - len(added))
        for token, name in zip(self.controls, self._names, strict=True):
            tokens[token] = _MARK + name
        tokens += [bytes([value]) if value < 255 else b"" for value in range(256)]
        described = _Described([*tokens, _MARK + b"end of the text"], self.byte(256))
        made: LLTokenizer = self._library.LLTokenizer(self._library.TokenizerWrapper(described))
        return made


class _Described:
    """What llguidance asks of a tokenizer. It never encodes: grammars are compiled so that the model decides on its tokens."""

    bos_token_id = None
    special_token_ids: tuple[int, ...] = ()

    def __init__(self, tokens: list[bytes], end: int):
        self.tokens, self.eos_token_id = tokens, end

    def __call__(self, text: Any) -> list[int]:
        return []
