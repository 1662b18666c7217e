"""What bounds the tokens of a request, such as a grammar, and its masks, which other threads make while the step runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Protocol

import numpy as np

from lacewing.errors import GrammarError

_THREADS = 4


class Constraint(Protocol):
    """Follows the tokens of one request. One thread at a time calls it, though not always the same.

    It allows the request's stop ids where nothing more need follow. What it raises fails the request alone.
    """

    def mask(self) -> np.ndarray | None:
        """The tokens that may come next, uint32 (ceil(V / 32),), as for `backends.batch.Wanted`; None: any."""

    def accept(self, token: int) -> bool:
        """A token of the answer, which is no stop id; False: it may not come next."""

    def stopped(self) -> bool:
        """Whether nothing may follow; then the request has ended."""


class Masks:
    """The constraint of a request, and the mask of its next token.

    `error`: what the constraint raised. Then the mask allows everything, so that a step of several requests goes on, and what is
    chosen for this one is of no use.
    """

    def __init__(self, constraint: Constraint, vocab_size: int):
        self._constraint, self._words = constraint, -(-vocab_size // 32)
        self._job: _Job | None = None
        self._mask: np.ndarray | None = None
        self.error: Exception | None = None
        self._bound = True  # the last one that was made allowed only some tokens, or none was made

    @property
    def free(self) -> bool:
        """Whether anything may come next. True only if that was so before, since a mask is better made while the step runs."""
        if self._bound or self.error is not None:
            return False
        begin([self])
        return self.get() is None and self.error is None

    def get(self) -> np.ndarray | None:
        """The mask that `begin` began to make."""
        if self._job is not None:
            self._job.finish()
        return self._mask

    def accept(self, token: int) -> bool:
        """Go on behind a token; whether the answer has ended with it. What went wrong, a token that may not come next included, is
        the `error` then."""
        self.get()
        self._job = self._mask = None
        try:
            if not self._constraint.accept(token):
                raise GrammarError(f"token {token} may not come next by the grammar of this request")
            return self._constraint.stopped()
        except Exception as error:
            self.error = error
            return False

    def _make(self) -> None:
        try:
            mask = self._constraint.mask()
            if mask is not None:
                if mask.dtype != np.uint32 or mask.shape != (self._words,):
                    raise GrammarError(f"a mask is {mask.dtype} of shape {mask.shape}, not uint32 ({self._words},)")
                if not mask.any():
                    raise GrammarError("the grammar of this request allows no token that the model has")
            self._mask, self._bound = mask, mask is not None
        except Exception as error:
            self.error = error


class _Job:
    """Masks that another thread makes, or whoever needs them before it has begun: on a busy machine it may be woken late."""

    def __init__(self, masks: Sequence[Masks]):
        self._masks = masks
        self._begun: Future[None] = _pool().submit(self._make)
        self._done = False

    def finish(self) -> None:
        if self._done:
            return
        if self._begun.cancel():
            self._make()
        else:
            self._begun.result()
        self._done = True

    def _make(self) -> None:
        for each in self._masks:
            each._make()


def begin(masks: Sequence[Masks]) -> None:
    """Make those that are not made yet, on other threads."""
    todo = [each for each in masks if each._job is None]
    groups = min(len(todo), _THREADS)
    for index in range(groups):
        group = todo[index::groups]
        job = _Job(group)
        for each in group:
            each._job = job


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1), "lacewing-mask")
