"""A bound for a model's thoughts, and a grammar for the answer behind them, as one constraint that knows where thoughts end.

Counting tokens alone would cut into calls and channels. This follows the answer and ends thoughts with the model's own mark.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lacewing.assistant.following import ANSWER, CALL, MARKUP, THINKING, UNDECIDED, Follower

if TYPE_CHECKING:
    from lacewing.engine.constraint import Constraint
    from lacewing.text.tokenizer import Tokenizer

_BLANKS = 3  # tokens of space between thoughts and an answer that follows a grammar


class ThinkingConstraint:
    """Follows one answer. After `budget` tokens of thoughts they are closed; None: never.

    `inner`: what the answer's text must follow, and nothing before it; with `whole`, what every token of the answer must follow,
    thoughts and markup included. `stop_ids` cannot come before a text that must follow something.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        vocab_size: int,
        follower: Follower,
        budget: int | None = None,
        inner: Constraint | None = None,
        whole: bool = False,
        stop_ids: Iterable[int] = (),
    ):
        self._tokenizer, self._words, self._follower = tokenizer, -(-vocab_size // 32), follower
        self._budget, self._used = budget, 0
        self._text: Constraint | None = None if whole else inner
        self._whole: Constraint | None = inner if whole else None
        self._no_stop = ~self._bits(stop_ids)
        self._blank = [ids[0] for ids in map(tokenizer.encode, ("\n", "\n\n", " ")) if len(ids) == 1]
        self._blanks = 0  # that may still come before the text
        self._forced: deque[int] = deque()
        self._steer()

    @property
    def spent(self) -> bool:
        """Whether there may be no more thoughts."""
        return self._budget is not None and self._used >= self._budget

    def mask(self) -> np.ndarray | None:
        if self._forced:
            return self._bits([self._forced[0]])
        allowed = self._whole.mask() if self._whole is not None else None if self._text is None else self._mask_text(self._text)
        if self._follower.phase == MARKUP:
            some, _ = self._follower.steer(self.spent, self._text is not None)
            steered = self._bits(some)
            if some and (allowed is None or (steered & allowed).any()):
                allowed = steered if allowed is None else steered & allowed
        return allowed

    def _mask_text(self, text: Constraint) -> np.ndarray | None:
        """Where the answer's text must follow something: of it, or of what stands before it."""
        phase = self._follower.phase
        if phase not in (ANSWER, UNDECIDED):
            return None if phase == CALL else self._no_stop
        more: Sequence[int] = self._blank if self._blanks else ()
        if phase == UNDECIDED and not self.spent:
            more = self._follower.openings()
        allowed = text.mask()
        return allowed if allowed is None or not more else allowed | self._bits(more)

    def accept(self, token: int) -> bool:
        if self._forced:
            if token != self._forced.popleft():
                return False
        elif not self._fits(token):
            return False
        if self._whole is not None and not self._whole.accept(token):
            return False
        before = self._follower.phase
        self._follower.push(token)
        self._used += before == THINKING
        if before == THINKING and self._follower.phase == ANSWER and self._text is not None:
            self._blanks = 0 if self._forced else _BLANKS
            if rest := self._follower.rest.strip():  # the same token holds the mark and what follows it
                return all(map(self._text.accept, self._tokenizer.encode(rest)))
        self._steer()
        return True

    def stopped(self) -> bool:
        if self._whole is not None:
            return self._whole.stopped()
        return self._text is not None and self._follower.phase == ANSWER and self._text.stopped()

    def _fits(self, token: int) -> bool:
        """Whether the text may go on so."""
        phase = self._follower.phase
        if self._text is None or phase not in (ANSWER, UNDECIDED):
            return True
        if phase == UNDECIDED and token in self._follower.openings():
            return True
        if self._blanks and token in self._blank:
            self._blanks -= 1
            return True
        self._blanks = 0
        return self._text.accept(token)

    def _steer(self) -> None:
        """What must come now."""
        if self._forced:
            return
        if self._follower.phase == THINKING and self.spent:
            self._forced.extend(self._follower.closing())
        elif self._follower.phase == MARKUP:
            self._forced.extend(self._follower.steer(self.spent, self._text is not None)[1])

    def _bits(self, ids: Iterable[int]) -> np.ndarray:
        """uint32 (ceil(V / 32),) with these bits set."""
        bits = np.zeros(self._words, np.uint32)
        for token in ids:
            if 0 <= token < 32 * self._words:
                bits[token // 32] |= np.uint32(1 << token % 32)
        return bits
