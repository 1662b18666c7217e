"""Who has a row of the step and pages: tasks wait for them, hold them while they run, and make room for each other."""

from __future__ import annotations

import bisect
import heapq
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable

from lacewing.backends.step import Step
from lacewing.engine.expected import AnswerLength
from lacewing.engine.pages import Full, Pages
from lacewing.engine.prefix import PrefixTree
from lacewing.engine.request import Task
from lacewing.engine.sequence import Sequence
from lacewing.engine.stats import Counters
from lacewing.engine.turn import Turn
from lacewing.errors import LacewingError, NumericError, OptionError, OutOfMemoryError

Checks = tuple[Callable[[], None], Callable[[], None]]  # of the weights: before each run, and when a request begins and ends


class Admission(ABC):
    """Rows and pages for tasks. Whoever has the `turn`, a lock, may call the methods.

    A task waits until there are pages for its prompt and for as long an answer as is usual, besides what the running ones will
    need. A page that is missing all the same is taken from the prefix tree, or else from the task that came last, which waits and
    runs again from its ids later. So one sequence of the whole context always fits, and the task that came first always goes on.
    """

    def __init__(self, step: Step, checks: Checks, state_bytes: int | None = None):
        self.step, self.checks = step, checks
        self.pack: Callable[[], str] = lambda: ""  # the path of the pack that experts are read from
        self.turn = Turn()
        self.counters = Counters()
        self.pages = Pages(step, state_bytes)
        self.tree = PrefixTree(self.pages)
        self._arrived: deque[Task] = deque()  # by `submit`, which any thread may call at any time
        self.waiting: deque[Task] = deque()
        self.running: list[Task] = []  # in the order of their arrival
        self.last: list[int] = []  # ids of the sequence that ran last, as far as they have been run
        self._lengths = AnswerLength()
        self._rows = list(range(step.limits.rows))  # that are free, a heap
        self.last_fault: Exception | None = None  # of a run of several tasks

    @abstractmethod
    def end_ahead(self) -> None:
        """What the device would choose next is not wanted."""

    def verify(self, thorough: bool = True) -> None:
        """Raise what a check of the weights does; what was run before may then be wrong and is dropped."""
        try:
            self.checks[thorough]()
        except BaseException:
            self.forget()
            raise

    def forget(self) -> None:
        self.tree.clear()
        self.last = []

    def close(self) -> None:
        self.end_ahead()
        self._welcome()
        for task in (*self.running, *self.waiting):
            self._fail(task, OptionError("the model has been closed"), whole=False)
        self.forget()

    # tasks come and go

    def submit(self, task: Task) -> None:
        """It waits from the next run on. Needs no turn."""
        task.submitted = True
        self._arrived.append(task)

    def _welcome(self) -> None:
        while self._arrived:
            task = self._arrived.popleft()
            if not task.done:
                self.waiting.append(task)

    def end(self, task: Task, reason: str) -> None:
        """Nobody wants more of it. Raises what `verify` does, where it was not cancelled."""
        if not task.done:
            self._finish(task, reason)
        task.tokens.clear()

    def _finish(self, task: Task, reason: str) -> None:
        """Not with that reason where the weights turn out to have changed meanwhile."""
        if reason != "cancelled":
            try:
                self.verify()
            except LacewingError as error:
                return self._fail(task, error, whole=False)
        if reason in ("stop", "length") and task.answers and task.request.sampling.max_tokens != 0:
            self._lengths.note(task.stats.generated_tokens)
        task.reason, task.done = reason, True
        self._leave(task, whole=True)

    def _fail(self, task: Task, error: Exception, whole: bool) -> None:
        """`whole`: what had been run before is as good as ever."""
        task.error, task.done = error.from_pack(self.pack()) if isinstance(error, NumericError) else error, True
        if not whole and task.sequence is not None and self.last is task.sequence.ids:
            self.last = []
        self._leave(task, whole)
        if not whole and task.stats.reused_tokens and not task.stats.generated_tokens:
            self.forget()  # nobody knows whether what it took up was broken already

    def _leave(self, task: Task, whole: bool) -> None:
        if task in self.waiting:
            self.waiting.remove(task)
        sequence = task.sequence
        if sequence is None:
            return
        self.end_ahead()
        self.running.remove(task)
        self.release(sequence, whole)
        task.sequence = None

    def _preempt(self, task: Task, first: bool, whole: bool = True) -> None:
        """It runs again later, `first` of all that wait or last. `whole`: from what has been run of it, if that is still there."""
        self.counters.preemptions += 1
        self._leave(task, whole)
        self.waiting.insert(0 if first else len(self.waiting), task)

    def _reap(self) -> None:
        """Those who have cancelled, and those that nobody can ask for any more."""
        for task in (*self.running, *self.waiting):
            if task.abandoned:
                self.end(task, task.leaving)
            elif task.request.cancelled is not None:
                try:
                    if task.request.cancelled():
                        self.end(task, "cancelled")
                except Exception as error:
                    self._fail(task, error, whole=True)

    # rows and pages

    def _admit(self, now: float) -> None:
        """Those that wait, in their order, as long as there are rows and pages for them."""
        while (found := self._admissible(now)) is not None:
            task, paused = found
            if paused is not None:
                self._preempt(paused, first=False)
                continue
            try:
                self._begin(task)
            except Exception as error:  # such as of a device that is lost
                self._fail(task, error, whole=False)

    def _admissible(self, now: float) -> tuple[Task, Task | None] | None:
        """The task that waits and can begin next, and the one that is paused and must make room for it; None: none can."""
        task = next((each for each in self.waiting if each.ready(now) and not each.waits(now)), None)
        if task is None or (self._rows and (not self.running or self._fits(task))):
            return None if task is None else (task, None)
        paused = self._paused(self.running)
        return None if paused is None else (task, paused)

    def _begin(self, task: Task) -> None:
        """In a row, with what can be taken up."""
        sequence = self.tree.acquire(task.history, task.reusable, task.number)
        self.waiting.remove(task)
        task.sequence = sequence
        bisect.insort(self.running, task, key=_number)  # first, so that it can leave if attaching fails
        sequence.attach(heapq.heappop(self._rows))
        if not task.admitted:
            task.admitted, task.stats.reused_tokens = True, len(sequence.ids)
            if len(self.running) == 1:
                self._rebalance(task)

    @staticmethod
    def _paused(tasks: list[Task]) -> Task | None:
        """One that does not go on, and whose row and pages others may have."""
        now = time.perf_counter()
        return next((each for each in tasks if not each.ready(now)), None)

    def _fits(self, task: Task) -> bool:
        """Whether it and the running tasks have pages for all that they are expected to become, within the budget of all groups."""
        hit, limits = self.tree.find(task.history, task.reusable), self.step.limits
        length, nbytes = self._lengths.positions(task, limits.context), 0
        running = [
            (each.sequence, self._lengths.positions(each, limits.context)) for each in self.running if each.sequence is not None
        ]
        for group, each in enumerate(self.step.groups):
            used = {page for sequence, _ in running for page in sequence.tables[group]}
            ahead = sum(max(0, each.live(end, limits.chunk) - len(sequence.tables[group])) for sequence, end in running)
            needed = each.live(length, limits.chunk) + ahead
            if group in self.pages.unlimited:
                index = self.pages.unlimited.index(group)
                used.update(node.pages[index] for node in hit.path)
                needed -= len(hit.path)
                if needed > limits.pool - len(used):
                    return False
            nbytes += (len(used) + needed) * each.nbytes
        return nbytes <= self.pages.budget

    def _rebalance(self, task: Task) -> None:
        try:
            self.verify()
            self.step.rebalance()
        except Exception as error:
            self._fail(task, error, whole=False)

    def attach(self, sequence: Sequence) -> None:
        """A row for a sequence without a task."""
        self.end_ahead()
        if not self._rows:
            self._preempt(self.running[-1], first=True)
        sequence.attach(heapq.heappop(self._rows))

    def release(self, sequence: Sequence, whole: bool = True) -> None:
        """Free its row; what it holds goes into the prefix tree."""
        if sequence.row is not None:
            heapq.heappush(self._rows, sequence.row)
        if whole:
            self.tree.put(sequence)
        else:
            self.tree.remove(sequence)
            sequence.drop()

    def reserve(self, sequence: Sequence, count: int, task: Task | None = None) -> bool:
        """Pages for `count` more positions, whoever has to make room for it. False: the task itself has, and waits; it has failed
        where it is alone and there is no memory."""
        while True:
            try:
                sequence.reserve(count)
                return True
            except Full as full:
                if self.tree.evict(full.group):
                    self.counters.evictions += 1
                    continue
            except Exception as error:
                if task is None:
                    raise
                self._fail(task, error, whole=True)
                return False
            others = [each for each in self.running if each is not task]
            paused = self._paused(others)
            if paused is not None:
                self._preempt(paused, first=False)
            elif others and (task is None or self.running[-1] is not task):
                self._preempt(others[-1], first=True)
            elif others and task is not None:
                self._preempt(task, first=True)
                return False
            else:
                return self._force(sequence, count, task)

    def _force(self, sequence: Sequence, count: int, task: Task | None) -> bool:
        try:
            sequence.reserve(count, force=True)
            return True
        except Full:
            error = OutOfMemoryError("no memory is left for the KV cache; close other programs, or load with a smaller `context`")
            if task is None:
                raise error from None
            self._fail(task, error, whole=True)
            return False


def _number(task: Task) -> int:
    return task.number
