"""What the next run of the step carries, and what becomes of it."""

from __future__ import annotations

import time
from contextlib import suppress

import numpy as np

from lacewing.backends.step import Step
from lacewing.engine.admission import Checks
from lacewing.engine.ahead import Ahead, draw_of, run_ahead
from lacewing.engine.pages import Full
from lacewing.engine.request import Task
from lacewing.engine.runs import Part, run
from lacewing.engine.sequence import Sequence
from lacewing.engine.share import LEAST, SMALLEST, prompt_seconds, shares
from lacewing.engine.steady import SteadyRuns
from lacewing.engine.watcher import Watcher
from lacewing.program.states import PAGE

PATIENCE = 0.4  # seconds between two questions whether the caller has cancelled
LOGIT_BYTES = 64 << 20  # rows of logits that are wanted of one run, at most
_AHEAD, _AHEAD_EACH = 256, 64  # tokens that a device may be asked for at once; of each of many sequences at least


class Scheduler(SteadyRuns):
    """Steps for all tasks at once: each run carries the next token of every task that generates, and then pieces of prompts."""

    def __init__(self, step: Step, context: int, checks: Checks, state_bytes: int | None = None):
        super().__init__(step, context, checks, state_bytes)
        self._ahead: Ahead | None = None
        self._watcher = Watcher(step.abort)

    # one run

    def advance(self) -> None:
        """One run for all that can go on."""
        began = time.perf_counter()
        if self._went_on(began):
            return
        self._welcome()
        self._reap()
        ahead = self._ahead
        if ahead is not None and (not ahead.goes_on or self._wanting(began) != ahead.tasks or self._admissible(began)):
            self.end_ahead()
        if self._ahead is None:
            if self.waiting:
                self._admit(began)
            parts = self._compose(self._by_turns(self._wanting(began)))
        else:
            parts = [Part(task.sequence, task.history[-1:], task, True) for task in self._ahead.tasks if task.sequence is not None]
        if parts:
            self._run(parts, began)

    def can_go_on(self) -> bool:
        """Whether another run would carry something."""
        if self.running and self.running[0].background:  # as always in a server
            return True
        now = time.perf_counter()
        self._welcome()
        return any(task.ready(now) for task in (*self.running, *self.waiting))

    def _wanting(self, now: float) -> list[Task]:
        """The running tasks that are to go on."""
        return [task for task in self.running if task.ready(now)]

    def _run(self, parts: list[Part], began: float) -> None:
        tasks = [part.task for part in parts]
        self._under_way = tasks
        self._watcher.begin([task.request.cancelled for task in tasks if task.request.cancelled is not None])
        try:
            if not self._verified(tasks):
                return
            if self._ahead is None:
                self._look_ahead(parts)
            choices = run(self.step, parts) if self._ahead is None else self._ahead.next()
            if self.observers:
                self.tell([(part.sequence, len(part.ids)) for part in parts])
        except Exception as error:
            return self._recover(tasks, error)
        except BaseException:
            self.end_ahead()
            raise
        finally:
            self._watcher.end()
            self._under_way = []
        self._note(parts, time.perf_counter() - began)
        prompts: list[tuple[Task, int]] = []
        for sequence, ids, task, _ in parts:
            task.suspect = False
            self.commit(sequence, ids, task)
            if not task.stats.generated_tokens:
                prompts.append((task, len(sequence.ids)))
        for task, choice in zip([task for _, _, task, chooses in parts if chooses], choices, strict=True):
            self._push(task, choice)
        if not prompts:
            self._look_steady(tasks)
        for task, done in prompts:
            self._report(task, done)
            self._collected(task, done)

    def _report(self, task: Task, done: int) -> None:
        if task.request.progress is not None:
            try:
                task.request.progress("reading the prompt", done, task.stats.prompt_tokens)
            except Exception as error:
                self._fail(task, error, whole=True)

    def _collected(self, task: Task, done: int) -> None:
        """So many ids of a prompt have been run, and somebody collects something of them."""
        if task.collector is None or task.done:
            return
        if task.collector.error is not None:
            self._fail(task, task.collector.error, whole=False)
        elif not task.answers and done == len(task.history):
            self._finish(task, "stop")

    def tell(self, spans: list[tuple[Sequence, int]]) -> None:
        """Observers, what routers have just decided about so many more tokens of each sequence."""
        if self.observers:
            places = [np.arange(len(sequence.ids), len(sequence.ids) + count, dtype=np.int32) for sequence, count in spans]
            self.observers.tell(np.concatenate(places))

    def _note(self, parts: list[Part], seconds: float) -> None:
        prompts: list[Task] = []
        total = answers = 0
        for _, ids, task, _ in parts:
            stats, count = task.stats, len(ids)
            total += count
            if not stats.generated_tokens:
                stats.prompt_seconds += seconds
                prompts.append(task)
                continue
            stats.generate_seconds += seconds
            if count > 1:
                prompts.append(task)
            else:
                answers += 1
        self.counters.runs[total] += 1
        self.counters.run_seconds += seconds
        self.costs.note(prompts, total - answers, answers, seconds)

    def commit(self, sequence: Sequence, ids: list[int], task: Task | None = None) -> None:
        """`ids` have been run: resume points where there are to be some."""
        before = len(sequence.ids)
        sequence.advance(ids)
        self.last = sequence.ids
        if task is None:
            return
        after = len(sequence.ids)
        if self.tree.limited and after // PAGE > before // PAGE:
            border = task.next_border(before)
            while border <= after:
                if border == after or not self.pages.fixed:
                    self.tree.keep(sequence, border)
                    self.end_ahead()  # which would write to units that are kept now
                border = task.next_border(border)
        if after == task.stats.prompt_tokens and self.step.limits.rows > 1:
            self.tree.enter(sequence, after, tail=True)  # for those who run beside it

    # what a run carries

    def _compose(self, wanting: list[Task]) -> list[Part]:
        """The next token of all that generate, then pieces of prompts."""
        parts: list[Part] = []
        decodes: list[Task] = []
        prompts: list[Task] = []
        for task in wanting:
            if task.learns:
                task.learns = False
                self._rebalance(task)
            (decodes if task.decodes else prompts).append(task)
        if len(decodes) > self.step.limits.chunk:
            decodes.sort(key=lambda task: task.stats.generated_tokens)
        for task in decodes[: self.step.limits.chunk]:
            sequence = task.sequence
            if sequence is not None and len(sequence.ids) < sequence.capacity and not self.pages.fixed:  # as nearly always
                parts.append(Part(sequence, task.history[-1:], task, True))
            else:
                self._add(parts, task, 1)
        if prompts:
            self._add_prompts(parts, prompts)
        return [part for part in parts if part.task.sequence is part.sequence]

    def _add_prompts(self, parts: list[Part], prompts: list[Task]) -> None:
        """Pieces of them, beside `parts`."""
        rows = max(1, LOGIT_BYTES // (4 * self.step.program.vocab_size))
        for task, count in self._shares(len(parts), prompts):
            scored = task.collector is not None and task.answers and task.collector.reusable is not None
            most = min(count, rows) if scored else count
            done = self._add(parts, task, most) if most > 0 else 0
            rows -= done * scored

    def _shares(self, decodes: int, prompts: list[Task]) -> list[tuple[Task, int]]:
        """Prompt tokens that a run carries."""
        chunk = self.step.limits.chunk
        if not decodes:
            alone = len(prompts) == 1 and prompts[0].request.cancelled is not None
            responsive = alone or any(task.request.responsive for task in prompts)
            return shares(prompts, self.responsive_chunk() if responsive else chunk, [1] * len(prompts), chunk)
        costs = self.costs.of(prompts)
        if costs is None:
            return shares(prompts, min(LEAST, chunk - decodes), [1] * len(prompts), chunk - decodes)
        seconds = prompt_seconds(self.costs.answers(decodes), sum(costs) / len(costs))
        return shares(prompts, seconds, costs, chunk - decodes)

    def responsive_chunk(self) -> int:
        """Prompt tokens that a run may take for a caller who may cancel: about `PATIENCE` seconds' worth."""
        return min(self.step.limits.chunk, max(SMALLEST, int(self.costs.pace * PATIENCE) // SMALLEST * SMALLEST))

    def _add(self, parts: list[Part], task: Task, most: int) -> int:
        """Up to `most` of its ids that have not been run; how many."""
        sequence = task.sequence
        if sequence is None:
            return 0
        start, end = len(sequence.ids), len(task.history)
        count = min(most, end - start)
        if self.pages.fixed and count > 1:  # a unit holds the state behind a run only
            count = min(count, task.next_border(start) - start)
        if not self.reserve(sequence, count, task):
            return 0
        parts.append(Part(sequence, task.history[start : start + count], task, task.answers and start + count == end))
        return count

    # the device's own choices

    @property
    def is_ahead(self) -> bool:
        return self._ahead is not None

    def _look_ahead(self, parts: list[Part]) -> None:
        """Let the device choose by itself where it can for all of them."""
        if not self.step.runs_ahead or self.observers or not parts:
            return
        tasks = [part.task for part in parts]
        if any(draw_of(task, self.step.most_candidates) is None for task in tasks):
            return
        if not all(part.sequence.owns_units() for part in parts):
            return
        most = max(_AHEAD_EACH, _AHEAD // len(tasks))  # their pages are reserved, and keep others out
        count = min([most, self.step.limits.chunk, *(task.left(self.context) for task in tasks)])
        for part in parts:
            with suppress(Full):
                part.sequence.reserve(1 if self.waiting else count)  # those that wait may want the pages
            count = min(count, part.sequence.capacity - len(part.sequence.ids))
        self._ahead = run_ahead(self.step, parts, count)

    def end_ahead(self) -> None:
        """What the device would choose next is not wanted."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.close()
