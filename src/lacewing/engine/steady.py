"""Runs that are like the one before but for one more token of each sequence: nearly all of a server's."""

from __future__ import annotations

import time

from lacewing.backends.step import Step
from lacewing.engine.admission import Checks
from lacewing.engine.observers import Observers
from lacewing.engine.recovery import Recovery
from lacewing.engine.request import Task
from lacewing.engine.runs import Choice, Steady
from lacewing.engine.share import SMALLEST, Costs
from lacewing.errors import LacewingError, NumericError


class SteadyRuns(Recovery):
    """What a run costs beside the step is mostly Python whose caches the weights have emptied: each call counts. So a run that
    carries the next tokens of the same tasks, and nothing that needs more, is made without asking everything anew."""

    def __init__(self, step: Step, context: int, checks: Checks, state_bytes: int | None = None):
        super().__init__(step, checks, state_bytes)
        self.context = context
        self.observers = Observers(step)
        self.costs = Costs()
        self._under_way: list[Task] = []
        self._steady: Steady | None = None
        self._steadies = not (step.most_candidates or step.runs_ahead or self.pages.fixed or self.tree.limited)

    def _look_steady(self, tasks: list[Task]) -> None:
        """A run has carried the next tokens of these."""
        if self._steadies and self.running == tasks and not self.waiting:
            self._steady = Steady.of(tasks, self.context)

    def _went_on(self, began: float) -> bool:
        """Make the run that comes next, if it is such a one."""
        steady, self._steady = self._steady, None
        if steady is None or self._arrived or self.waiting or self.observers or self.running != steady.tasks:
            return False
        if steady.left <= 0:
            return False
        for task in steady.tasks:
            if task.abandoned:
                return False
        self._run_steady(steady, began)
        return True

    def _run_steady(self, steady: Steady, began: float) -> None:
        """As `_run`, of what such tasks can come to."""
        self._under_way = tasks = steady.tasks
        try:
            if not self._verified(tasks):
                return
            choices = steady.run(self.step)
        except Exception as error:
            return self._recover(tasks, error)
        finally:
            self._under_way = []
        seconds = time.perf_counter() - began
        self.counters.runs[len(tasks)] += 1
        self.counters.run_seconds += seconds
        self.costs.note((), 0, len(tasks), seconds)
        ended: list[tuple[Task, Choice]] = []
        for (task, sequence), choice in zip(steady.pairs, choices, strict=True):
            stats, history = task.stats, task.history
            stats.generate_seconds += seconds
            sequence.ids.append(history[-1])
            if isinstance(choice, Exception) or choice.id in task.request.stop_ids:
                ended.append((task, choice))
                continue
            history.append(choice.id)
            task.tokens.append(choice)
            stats.generated_tokens += 1
        self.last = sequence.ids
        for task, choice in ended:
            self._push(task, choice)
        if not ended:
            self._steady = steady

    def interrupt(self, task: Task | None = None, alone: bool = False) -> None:
        """End the run that is under way, if it is one for this task; its others run again. Without the turn, to have that soon.
        `alone`: only if there are no others."""
        tasks = self._under_way
        if tasks and (task is None or task in tasks) and not (alone and len(tasks) > 1):
            self.step.abort()

    def _verified(self, tasks: list[Task]) -> bool:
        """Whether the weights are what they were; if not, all that would read them fail."""
        try:
            self.verify(thorough=False)
            return True
        except Exception as error:
            for task in tasks:
                self._fail(task, error, whole=not isinstance(error, LacewingError))
            return False

    def _push(self, task: Task, choice: Choice) -> None:
        task.plain = False
        task.sampler.chosen()
        if task.done:
            return
        if isinstance(choice, Exception):
            return self._fail(task, choice, whole=not isinstance(choice, NumericError))
        stats = task.stats
        if task.request.sampling.max_tokens == 0:
            return self._finish(task, "length")
        if choice.id in task.request.stop_ids:
            return self._finish(task, "stop")
        complete = task.masks is not None and task.masks.accept(choice.id)
        if task.masks is not None and task.masks.error is not None:
            return self._fail(task, task.masks.error, whole=True)
        task.history.append(choice.id)
        task.tokens.append(choice)
        stats.generated_tokens += 1
        if stats.generated_tokens == 1:
            stats.first_token_seconds = stats.prompt_seconds
            task.learns = stats.prompt_tokens - stats.reused_tokens >= SMALLEST
        if complete or task.left(self.context) <= 0:
            self._finish(task, "stop" if complete else "length")
