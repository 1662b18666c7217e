"""How the time of a run is shared: between answers and prompts, and among prompts."""

from __future__ import annotations

from collections.abc import Sequence

from lacewing.engine.request import Task

SMALLEST = 64  # tokens of a run in which the weights are still used well
MEASURED = 32  # prompt tokens of a run that says how fast prompts are
_LEAST = 32  # prompt tokens of a run in which others generate, however long it takes
_SECONDS = 0.1  # that prompts may take of such a run whatever the others take
_GAP = 0.3  # seconds between two tokens of an answer up to which prompts may take more
_OLDEST = 4  # one part in so many is for the prompt that has waited longest


def prompt_tokens(decodes: int, seconds: float, pace: float) -> int:
    """Tokens of prompts that a run may carry beside the next tokens of so many answers, which by themselves would take `seconds`.

    `pace`: tokens/s of late. Prompts take 0.1 s, or as long as the answers; and as long as two tokens of an answer are at most
    0.3 s apart, up to twice as long as the answers, or the time of as many tokens as use the weights well.
    """
    if pace <= 0:
        return _LEAST
    seconds = max(seconds, decodes / pace)
    most = int(pace * max(seconds + _SECONDS, 2 * seconds, min(3 * seconds, _GAP)))
    return max(_LEAST, most - decodes, min(SMALLEST, int(pace * _GAP) - decodes))


def shares(prompts: Sequence[Task], room: int) -> list[tuple[Task, int]]:
    """So many of `room` tokens for each, in the order in which they are run.

    The shortest comes first: that brings the first tokens soonest on the whole. A part is kept for the one that has waited longest,
    so that short ones that go on arriving do not keep a long one from being read.
    """
    if not prompts or room <= 0:
        return []
    order = sorted(prompts, key=lambda task: (task.left_of_prompt, task.number))
    oldest = min(prompts, key=lambda task: task.number)
    kept = min(oldest.left_of_prompt, max(_LEAST, room // _OLDEST), room) if oldest is not order[0] else 0
    found: list[tuple[Task, int]] = []
    for task in order:
        count = min(task.left_of_prompt, room - kept) if task is not oldest else min(task.left_of_prompt, room)
        kept = 0 if task is oldest else kept
        if count > 0:
            found.append((task, count))
            room -= count
    return found
