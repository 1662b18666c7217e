"""How the time of a run is shared: between answers and prompts, and among prompts."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from lacewing.engine.request import Task
from lacewing.engine.stats import rate

SMALLEST = 64  # tokens of a run in which the weights are still used well
MEASURED = 16  # prompt tokens of a run that says how fast prompts are
LEAST, _FEWEST = 32, 16  # prompt tokens of a run beside answers, however long it takes; fewer if reading weights is no matter
_SECONDS = 0.1  # that prompts may take of such a run whatever the others take
_GAP = 0.3  # seconds between two tokens of an answer up to which prompts may take more
_WELL, _USED = 8, 4  # times the answers' time, for which the same weights are read: prompts use them well, or at least enough
_OLDEST = 4  # one part in so many is for the prompt that has waited longest
_ROUNDING = 1e-6  # of a token
_LATE = 8  # runs without a prompt that tell what answers take


def prompt_seconds(answers: float, each: float) -> float:
    """Seconds that prompts may take of a run beside the next tokens of answers, which by themselves would take `answers` seconds.

    `each`: seconds of a prompt token. Prompts take 0.1 s, or as long as the answers; as long as two tokens of an answer are at most
    0.3 s apart, up to twice as long as the answers, or until the weights are used well. Attention to many positions costs each
    token the same however few come at once, so a deep prompt comes in smaller pieces.
    """
    fair = max(_SECONDS, answers, min(2 * answers, _GAP - answers))
    well = min(SMALLEST * each, _WELL * answers, _GAP - answers)
    least = min(LEAST * each, max(_FEWEST * each, _USED * answers))
    return max(fair, well, least)


def shares(prompts: Sequence[Task], room: float, costs: Sequence[float], most: int) -> list[tuple[Task, int]]:
    """So many tokens for each, in the order in which they are run, `most` in all; a token of `prompts[i]` takes `costs[i]` of the
    `room`, as seconds.

    The shortest comes first: that brings the first tokens soonest on the whole. A part of both is kept for the one that has waited
    longest, so that short ones that go on arriving do not keep a long one from being read.
    """
    if not prompts or room <= 0 or most <= 0:
        return []
    order = sorted(zip(prompts, costs, strict=True), key=lambda each: (each[0].left_of_prompt, each[0].number))
    oldest, cost = min(order, key=lambda each: each[0].number)
    part = max(min(LEAST * cost, room / 2), room / _OLDEST)
    kept = min(oldest.left_of_prompt, max(1, int(part / cost + _ROUNDING)), max(1, min(LEAST, most // 2), most // _OLDEST))
    found: list[tuple[Task, int]] = []
    for task, each in order:
        fits = int((room - (0 if task is oldest else kept * cost)) / each + _ROUNDING)
        count = min(task.left_of_prompt, max(fits, kept), most) if task is oldest else min(task.left_of_prompt, fits, most - kept)
        kept = 0 if task is oldest else kept
        if count > 0:
            found.append((task, count))
            room -= count * each
            most -= count
    return found


class Costs:
    """What runs of an engine took of late, in seconds."""

    def __init__(self) -> None:
        self.pace = 0.0  # tokens/s of the last run with prompts
        self._answers: deque[float] = deque(maxlen=_LATE)  # of one answer alone, from runs without a prompt
        self._first = 0.0  # of a token of a prompt that had just begun; 0: not known

    def note(self, prompts: Sequence[Task], tokens: int, others: int, seconds: float) -> None:
        """A run carried so many tokens of `prompts`, and `others`, one for each answer."""
        if not tokens:
            self._answers.append(seconds / math.sqrt(others))
        elif tokens >= MEASURED:
            self.pace = rate(tokens + others, seconds)
            found = max(seconds - self.answers(others), seconds / 2) / tokens
            for task in prompts:
                before = task.token_seconds
                task.token_seconds = (found + before) / 2 if before else found
                self._first = self._first if before else _calm(self._first, found)

    def answers(self, count: int) -> float:
        """The next tokens of so many answers by themselves: more of them share the reading of weights.

        The quickest of the last runs without a prompt tells: the arrival of a long prompt disturbs those just before it, and none
        comes after. Before any such run they are taken to cost what tokens of a prompt do, which may be deep in a context that was
        found in the cache.
        """
        return min(self._answers) * math.sqrt(count) if self._answers else count * self._first

    def of(self, prompts: Sequence[Task]) -> list[float] | None:
        """A token of each prompt; None: nobody knows yet."""
        costs = [task.token_seconds or self._first for task in prompts]
        return costs if all(costs) else None


def _calm(before: float, found: float) -> float:
    """An estimate that falls at once and rises by half: runs that others disturb take longer, and none takes less than it must."""
    return min(found, (before + found) / 2) if before else found
