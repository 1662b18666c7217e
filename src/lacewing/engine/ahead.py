"""Runs that the device does ahead of the host: it chooses the next tokens itself, of tasks that all do nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod

from lacewing.backends.batch import Draw
from lacewing.backends.step import Step
from lacewing.engine.request import Task
from lacewing.engine.runs import Choice, Part, batch_of, pick_all
from lacewing.engine.sampling import Token, not_finite
from lacewing.errors import NumericError


class Ahead(ABC):
    """`left`: runs that there may still be."""

    def __init__(self, tasks: list[Task], count: int):
        self.tasks, self.left = list(tasks), count

    @property
    def goes_on(self) -> bool:
        """Whether the next run is what the device has gone on with; it knows nothing of masks."""
        return self.left > 0 and all(task.masks is None or task.masks.free for task in self.tasks)

    @abstractmethod
    def next(self) -> list[Choice]:
        """A token of each task. Raises as `Step.greedy`."""

    @abstractmethod
    def close(self) -> None:
        """What comes after is not wanted."""


def run_ahead(step: Step, parts: list[Part], count: int) -> Ahead:
    """Begin with `parts`, the last token of each task; every task has a `draw_of`."""
    tasks = [part.task for part in parts]
    kind = Greedy if all(task.sampler.takes_largest for task in tasks) else Drawn
    return kind(step, tasks, parts, count)


def draw_of(task: Task, most: int) -> Draw | None:
    """How a device chooses the next tokens of a task, from at most so many candidates; None: it is not to do so."""
    if task.plain or not task.decodes or (task.masks is not None and not task.masks.free):
        return None
    found = task.sampler.draw
    return found if found is not None and (found.count == 1 or found.count <= most) else None


class Greedy(Ahead):
    """The largest logits."""

    def __init__(self, step: Step, tasks: list[Task], parts: list[Part], count: int):
        super().__init__(tasks, count)
        self._choices = step.greedy(batch_of(step, parts), count)

    def next(self) -> list[Choice]:
        self.left -= 1
        try:
            return [Token(token) for token in next(self._choices).tolist()]
        except NumericError:
            if len(self.tasks) > 1:
                raise
            return [not_finite(len(self.tasks[0].history) - 1)]

    def close(self) -> None:
        self._choices.close()


class Drawn(Ahead):
    """The device draws as the samplers will, and goes on with that. What counts is what the samplers then draw of its candidates,
    so that a seed gives the same tokens on every way; where they draw another token, which rounding makes rare, this ends."""

    def __init__(self, step: Step, tasks: list[Task], parts: list[Part], count: int):
        super().__init__(tasks, count)
        self._taken = 0
        self._wishes = [task.sampler.wanted(task.history) for task in tasks]
        draws = [draw for task in tasks if (draw := task.sampler.draw) is not None]
        self._found = step.drawn(batch_of(step, parts), draws, count, self._numbers)

    def _numbers(self, index: int) -> list[float]:
        """The random numbers of the tokens after `index` others."""
        ahead = index - self._taken
        return [0.0 if task.sampler.takes_largest else task.sampler.upcoming(ahead) for task in self.tasks]

    def next(self) -> list[Choice]:
        self.left -= 1
        found, expected = next(self._found)
        choices = [each for each in pick_all(self.tasks, self._wishes, found) if each is not None]
        if len(choices) < len(self.tasks):
            raise NumericError("so few logits are finite that it takes whole rows to choose")
        self._taken += 1
        if [each.id if isinstance(each, Token) else None for each in choices] != expected.tolist():
            self.left = 0
        return choices

    def close(self) -> None:
        self._found.close()
