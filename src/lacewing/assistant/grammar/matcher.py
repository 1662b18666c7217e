"""A compiled grammar that follows the tokens of one request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lacewing.errors import GrammarError

if TYPE_CHECKING:
    from llguidance import LLMatcher

    from lacewing.assistant.grammar.vocabulary import GrammarVocabulary


class Matcher:
    """See `engine.constraint.Constraint`.

    `start`: the matcher of a vocabulary whose tokens add what the first one of a text adds, None where this is no difference. It
    leads until a token adds something; `later` is fed the same bytes, and leads from then on.
    """

    def __init__(self, vocabulary: GrammarVocabulary, stop_ids: frozenset[int], later: LLMatcher, start: LLMatcher | None):
        self._vocabulary, self._later, self._start = vocabulary, later, start
        self._stop_ids, self._ended = stop_ids, False
        self._ends = np.zeros(vocabulary.words, np.uint32)
        for token in stop_ids:
            if token < vocabulary.size:
                self._ends[token // 32] |= np.uint32(1 << token % 32)

    @property
    def _leading(self) -> LLMatcher:
        return self._start or self._later

    def mask(self) -> np.ndarray:
        """Raises GrammarError where the grammar has become too large to be followed."""
        leading = self._leading
        mask = self._vocabulary.mask(leading)
        if leading.is_error():
            raise GrammarError(f"the grammar cannot be followed any further: {leading.get_error()[:200]}")
        return mask | self._ends if leading.is_accepting() else mask

    def accept(self, token: int) -> bool:
        if token in self._stop_ids and self._leading.is_accepting():  # of a request that does not stop there
            self._ended = True
            return True
        if self._start is None:
            return self._later.consume_token(token)
        if not self._start.consume_token(token):
            return False
        added = self._vocabulary.started(token)
        if added is None:
            return self._later.consume_token(token)
        self._start = None
        return self._later.consume_tokens([self._vocabulary.byte(value) for value in added])

    def stopped(self) -> bool:
        return self._ended or (self._leading.is_stopped() and not self._leading.is_error())
