"""One run of a step for several tasks: the batch, who chooses the next tokens, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np

from lacewing.backends.batch import Batch, Candidates, Wanted
from lacewing.backends.choice import RowMaxima
from lacewing.backends.step import Step
from lacewing.engine.constraint import begin
from lacewing.engine.request import Task
from lacewing.engine.sampling import Token, Top, not_finite
from lacewing.engine.sequence import Sequence
from lacewing.engine.together import Rows, pick_rows_together, pick_together
from lacewing.errors import NumericError, OptionError


class Part(NamedTuple):
    """`ids` of a task to run, which has `sequence` now. `chooses`: the token after them is wanted."""

    sequence: Sequence
    ids: list[int]
    task: Task
    chooses: bool

    def collected(self, hidden: bool) -> range:
        """Positions of which the task's collector takes hidden states, or logits."""
        collector, start = self.task.collector, len(self.sequence.ids)
        return range(0) if collector is None or collector.reads_hidden != hidden else collector.wanted(start, start + len(self.ids))

    def wishes(self) -> list[tuple[Wanted, ...]]:
        """What is looked at of the largest logits of each of its outputs; (): of whole rows."""
        collector = self.task.collector
        found = [] if collector is None else [collector.wish(position) for position in self.collected(hidden=False)]
        own = [self.task.wanted()] if self.chooses else []
        return [*(() if wish is None else (wish,) for wish in found), *own]

    def collect(self, rows: np.ndarray, hidden: bool) -> int:
        """Give them to the collector, which are the first of `rows`; how many."""
        positions, collector = self.collected(hidden), self.task.collector
        for position, row in zip(positions, rows, strict=False):
            if collector is not None:
                collector.take(position, row)
        return len(positions)


Choice = Token | Exception


def batch_of(step: Step, parts: list[Part]) -> Batch:
    """The tokens of all parts; outputs are those of a prompt whose logits are collected, then the last where a token is chosen."""
    tokens: list[int] = []
    outputs: list[int] = []
    hidden: list[int] = []
    spans: list[tuple[Sequence, int]] = []
    for part in parts:
        sequence, ids, task, chooses = part
        if task.collector is not None:
            before = len(tokens) - len(sequence.ids)
            outputs += (before + position for position in part.collected(hidden=False))
            hidden += (before + position for position in part.collected(hidden=True))
        tokens += ids
        spans.append((sequence, len(ids)))
        if chooses:
            outputs.append(len(tokens) - 1)
    batch = make_batch(step, spans, tokens, np.array(outputs, np.int32))
    return replace(batch, hidden=np.array(hidden, np.int32)) if hidden else batch


def make_batch(step: Step, spans: list[tuple[Sequence, int]], tokens: list[int], outputs: np.ndarray) -> Batch:
    """So many tokens of each sequence after those that it has."""
    rows: list[int] = []
    positions: list[int] = []
    for sequence, count in spans:
        start, row = len(sequence.ids), sequence.row or 0
        if count == 1:
            rows.append(row)
            positions.append(start)
        else:
            rows += [row] * count
            positions += range(start, start + count)
    units = _units(step, [sequence for sequence, _ in spans]) if step.fixed else (None, None)
    ids, table_rows, places = np.array((tokens, rows, positions), np.int32)  # one call: each costs as much as a short array
    return Batch(ids, table_rows, places, outputs, *units)


def _units(step: Step, sequences: list[Sequence]) -> tuple[np.ndarray, np.ndarray]:
    units_in, units_out = (np.full((step.fixed, step.limits.rows), -1, np.int32) for _ in range(2))
    for sequence in sequences:
        for at, group in enumerate(sequence.pages.fixed):
            table = sequence.tables[group]
            units_in[at, sequence.row or 0] = table[0] if table else -1
            units_out[at, sequence.row or 0] = sequence.next_units[group]
    return units_in, units_out


def run(step: Step, parts: list[Part]) -> list[Choice]:
    """Run all parts; the next token of those that choose one, or why there is none. Raises as `Step.run`."""
    batch = batch_of(step, parts)
    choices = _choices(step, batch, parts)
    if batch.hidden is not None:
        _collect_hidden(parts, step.hidden())
    return choices


class Steady:
    """Runs that bring the next token of each of the same tasks and nothing else, as nearly all of a server's do: what they have in
    common is looked at once. To be made anew when anything else is to be run, or `left` of them are over: then pages are needed, or
    a task has its last token.
    """

    def __init__(self, tasks: list[Task], sequences: list[Sequence], context: int):
        self.tasks, self.pairs = tasks, list(zip(tasks, sequences, strict=True))
        self.left = min(min(sequence.capacity - len(sequence.ids), task.left(context) - 1) for task, sequence in self.pairs)
        self._take_largest = all(task.sampler.takes_largest for task in tasks)
        rows, outputs = np.array([sequence.row for sequence in sequences], np.int32), np.arange(len(tasks), dtype=np.int32)
        self._batch = Batch(np.empty_like(rows), rows, np.empty_like(rows), outputs)

    @staticmethod
    def of(tasks: list[Task], context: int) -> Steady | None:
        """None: not all of them can run so."""
        sequences = [task.sequence for task in tasks if task.sequence is not None and task.steady]
        return Steady(tasks, sequences, context) if tasks and len(sequences) == len(tasks) else None

    def run(self, step: Step) -> list[Choice]:
        """The next tokens, or why there is none. Raises as `Step.run`."""
        self.left -= 1
        tokens, positions = self._batch.tokens, self._batch.positions
        for place, (task, sequence) in enumerate(self.pairs):
            tokens[place], positions[place] = task.history[-1], len(sequence.ids)
        rows = step.run(self._batch)
        if self._take_largest and step.maxima is not None:
            best = step.maxima.ids.tolist()
            if min(best) >= 0:
                return [Token(each) for each in best]
        choices = _pick_each(self.tasks, rows, step.maxima)
        for task in self.tasks:
            task.sampler.chosen()
        return choices


def _choices(step: Step, batch: Batch, parts: list[Part]) -> list[Choice]:
    tasks = [task for _, _, task, chooses in parts if chooses]
    masks = [task.masks for task in tasks if task.masks is not None]
    if masks:
        begin(masks)
    found = _among_candidates(step, batch, parts) if step.most_candidates else None
    if found is None or None in found:
        rows = step.run(batch)  # where somebody's logits are no numbers, they show whose
        choices = _pick_each(tasks, *_collect(parts, rows, step.maxima), found)
    else:
        choices = [each for each in found if each is not None]
    if not masks:
        return choices
    errors = [None if task.masks is None else task.masks.error for task in tasks]
    return [choice if error is None else error for choice, error in zip(choices, errors, strict=True)]


def _pick_each(tasks: list[Task], rows: Rows, maxima: RowMaxima | None, known: list[Choice | None] | None = None) -> list[Choice]:
    """The next token of each task from its row, or why there is none. `known`: some of them; `maxima`: of the rows."""
    known = known or _known(tasks, rows, maxima)
    sound = () if maxima is None or None not in known else maxima.ids.tolist()
    return [
        each or _pick(task, rows[index], partial(maxima.top_k, index, rows[index]) if maxima and sound[index] >= 0 else None)
        for index, (task, each) in enumerate(zip(tasks, known, strict=True))
    ]


def _known(tasks: list[Task], rows: Rows, maxima: RowMaxima | None) -> list[Choice | None]:
    """The choices that are made together, of whole rows; None: of those who choose alone."""
    plain = [index for index, task in enumerate(tasks) if task.masks is None]
    if len(plain) < len(tasks):
        rows, maxima = [rows[index] for index in plain], None if maxima is None else maxima.of(plain)
    picked = pick_rows_together([tasks[index].sampler for index in plain], rows, maxima)
    known: list[Choice | None] = [None] * len(tasks)
    for place, token in picked.items():
        known[plain[place]] = token
    return known


def _among_candidates(step: Step, batch: Batch, parts: list[Part]) -> list[Choice | None] | None:
    """The choices of a device that finds what they look at, and what prompts collect; None: whole rows are wanted, of all or one.

    A choice that is None takes whole rows to tell; nothing has been collected then.
    """
    wishes = [part.wishes() for part in parts]
    outputs = [some for each in wishes for some in each]
    wanted = [each for some in outputs for each in some]
    if not outputs or not all(outputs) or max(each.count for each in wanted) > step.most_candidates:
        return None
    if len(wanted) > len(outputs):
        if len(wanted) > step.limits.chunk:
            return None
        batch = replace(batch, outputs=np.repeat(batch.outputs, [len(some) for some in outputs]))
    tasks = [part.task for part in parts if part.chooses]
    try:
        found = step.choose(batch, wanted)
    except NumericError:
        broken = len(tasks) == len(outputs) == 1 and tasks[0].masks is None
        return [not_finite(len(tasks[0].history) - 1)] if broken else None
    except OptionError:
        return None  # such as of a mask that allows only what the model gives no probability; the rows show whose
    return _told_apart(parts, wishes, found)


def _told_apart(parts: list[Part], wishes: list[list[tuple[Wanted, ...]]], found: list[Candidates]) -> list[Choice | None] | None:
    """The choices among what was found, once prompts have theirs; None: one of these takes whole rows to tell."""
    rest, collected, left = iter(found), list[Callable[[], None]](), list[Candidates]()
    for part, some in zip(parts, wishes, strict=True):
        collector = part.task.collector
        for position in part.collected(hidden=False):
            take = None if collector is None else collector.among(position, next(rest))
            if take is None:
                return None
            collected.append(take)
        left += islice(rest, len(some[-1]) if part.chooses else 0)
    own = [some[-1] for part, some in zip(parts, wishes, strict=True) if part.chooses]
    choices = pick_all([part.task for part in parts if part.chooses], own, left)
    for take in collected if None not in choices else ():
        take()
    return choices


def pick_all(tasks: list[Task], wishes: list[tuple[Wanted, ...]], found: list[Candidates]) -> list[Choice | None]:
    """The next token of each task from what it wished for, or why there is none; None: it takes whole rows to tell."""
    first = np.cumsum([0, *map(len, wishes)]).tolist()
    plain = [index for index, task in enumerate(tasks) if task.masks is None]
    known = pick_together([tasks[index].sampler for index in plain], [found[first[index]] for index in plain])
    picked: dict[int, Choice | None] = {plain[place]: token for place, token in known.items()}
    for index, (task, some) in enumerate(zip(tasks, wishes, strict=True)):
        if index not in picked:
            picked[index] = _pick_among(task, some, found[first[index] : first[index + 1]])
    return [picked[index] for index in range(len(tasks))]


def _collect(parts: list[Part], rows: np.ndarray, maxima: RowMaxima | None) -> tuple[Rows, RowMaxima | None]:
    """Give logits of prompts to those who collect them; what is left, of those who choose."""
    if len(rows) == sum(part.chooses for part in parts):
        return rows, maxima
    left, at = [], 0
    for part in parts:
        at += part.collect(rows[at:], hidden=False)
        if part.chooses:
            left.append(at)
            at += 1
    return [rows[place] for place in left], None if maxima is None else maxima.of(left)


def _collect_hidden(parts: list[Part], rows: np.ndarray) -> None:
    at = 0
    for part in parts:
        at += part.collect(rows[at:], hidden=True)


def _pick(task: Task, row: np.ndarray, top: Top | None) -> Choice:
    try:
        return task.sampler.pick(row, task.history, None if task.masks is None else task.masks.get(), top)
    except Exception as error:  # of this task alone, whatever it is
        return error


def _pick_among(task: Task, wanted: tuple[Wanted, ...], found: list[Candidates]) -> Choice | None:
    try:
        return task.sampler.pick_among(wanted, found, task.history)
    except Exception as error:
        return error
