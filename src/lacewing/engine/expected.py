"""How long answers are expected to become, told from those before: so many pages are to be there for them."""

from __future__ import annotations

from lacewing.engine.request import Task

_FIRST = 256.0  # tokens of an answer where nobody knows better
_WEIGHT = 8  # one part in so many of the mean is the last answer's


class AnswerLength:
    """The mean of late, in tokens. Most requests only say how long an answer may be, and few become as long as that."""

    def __init__(self) -> None:
        self._mean = _FIRST

    def note(self, tokens: int) -> None:
        """An answer has ended."""
        self._mean += (tokens - self._mean) / _WEIGHT

    def positions(self, task: Task, context: int) -> int:
        """That a task will have in the end: one that is longer than others goes on for half as long again."""
        if not task.answers:
            return len(task.history)
        done = task.stats.generated_tokens
        left = max(round(self._mean) - done, done // 2, 1)
        return min(len(task.history) + min(left, max(1, task.left(context))), context)
