"""How a run is shared between answers and prompts, and among prompts; and what that comes to under load, by a clock that runs as
kernels do."""

from __future__ import annotations

import types

import numpy as np
import pytest

from lacewing.backends.batch import StepLimits
from lacewing.backends.step import Step
from lacewing.engine import admission, request, scheduler, steady, stream
from lacewing.engine.engine import Engine, Request
from lacewing.engine.expected import AnswerLength
from lacewing.engine.share import Costs, prompt_seconds, shares
from lacewing.options import Sampling
from lacewing.program.operands import Buffer, View
from lacewing.program.ops import Logits
from lacewing.program.program import Program
from tests.engine.mock import FULL, VOCAB


class Waiting:
    def __init__(self, number: int, left: int):
        self.number, self.left_of_prompt = number, left


@pytest.mark.parametrize(
    ("lefts", "room", "expected"),
    [
        ([100], 64, [(0, 64)]),
        ([10], 64, [(0, 10)]),
        ([100, 100], 64, [(0, 64)]),
        ([100, 10], 64, [(1, 10), (0, 54)]),
        ([8000, 60], 64, [(1, 32), (0, 32)]),
        ([8000, 60, 20], 64, [(2, 20), (1, 12), (0, 32)]),
        ([8000, 500, 400], 400, [(2, 300), (0, 100)]),
        ([20, 8000, 50], 64, [(0, 20), (2, 44)]),
        ([8000, 60], 16, [(1, 8), (0, 8)]),
        ([8000, 6], 16, [(1, 6), (0, 10)]),
        ([100, 50], 0, []),
        ([], 64, []),
    ],
)
def test_the_shortest_first_and_a_part_for_the_oldest(lefts, room, expected):
    tasks = [Waiting(number, left) for number, left in enumerate(lefts)]
    assert [(task.number, count) for task, count in shares(tasks, room, [1] * len(lefts), 512)] == expected


def test_a_share_is_of_time():
    """A token of the deep prompt takes four times as long."""
    tasks = [Waiting(0, 8000), Waiting(1, 150)]
    assert [(task.number, count) for task, count in shares(tasks, 0.1, [0.004, 0.001], 512)] == [(1, 52), (0, 12)]
    assert [(task.number, count) for task, count in shares(tasks[:1], 0.1, [0.004], 512)] == [(0, 25)]


def test_short_prompts_that_fill_a_run_leave_a_part_of_it_to_the_oldest():
    """A quick device: the tokens of a run are over before its time is."""
    tasks = [Waiting(0, 20_000), Waiting(1, 600)]
    assert [(task.number, count) for task, count in shares(tasks, 0.1, [1 / 8000] * 2, 511)] == [(1, 384), (0, 127)]
    assert [(task.number, count) for task, count in shares(tasks, 0.1, [1 / 8000] * 2, 1)] == [(0, 1)]


def test_the_oldest_goes_on_even_if_a_token_of_it_takes_more_than_its_part():
    tasks = [Waiting(0, 8000), *(Waiting(number, 200) for number in range(1, 13))]
    found = dict((task.number, count) for task, count in shares(tasks, 0.32, [0.2, *[0.005] * 12], 512))
    assert found[0] >= 1 and found[1] >= 16 and sum(found.values()) <= 512


@pytest.mark.parametrize(
    ("answers", "each", "expected"),
    [
        (0.008, 1 / 2000, 200),  # a tenth of a second besides the answers
        (0.12, 1 / 240, 43),  # 0.3 s with the answers
        (0.04, 1 / 280, 64),  # as many as use the weights well, within 0.3 s
        (0.045, 0.005, 51),  # within 0.3 s the weights are used better
        (0.012, 0.005, 20),  # attention to many positions: the weights are used well by few
        (0.012, 0.010, 16),  # however long it takes
        (0.3, 0.01, 32),  # the weights take longest
        (0.5, 1 / 40, 32),
    ],
)
def test_what_prompts_may_take_of_a_run_beside_answers(answers, each, expected):
    assert int(prompt_seconds(answers, each) / each + 1e-6) == expected


def test_what_runs_took():
    costs = Costs()
    one, other = (types.SimpleNamespace(token_seconds=0.0) for _ in range(2))
    assert costs.of([one]) is None
    costs.note([], 0, 4, 0.02)
    assert costs.answers(4) == 0.02 and costs.answers(16) == 0.04
    costs.note([], 0, 4, 0.06)  # somebody else was computing, as the server does while it takes in a long prompt
    assert costs.answers(4) == 0.02
    for _ in range(7):
        costs.note([], 0, 4, 0.03)
    assert costs.answers(4) == 0.03  # it does take longer now
    costs.note([], 0, 4, 0.02)
    assert costs.answers(4) == 0.02
    costs.note([one], 50, 4, 0.12)
    assert costs.of([one, other]) == pytest.approx([0.002, 0.002])  # the other one begins as this did
    costs.note([one], 50, 4, 0.22)
    assert costs.of([one, other]) == pytest.approx([0.003, 0.002]) and costs.pace == pytest.approx(54 / 0.22)
    costs.note([one], 15, 4, 9.0)  # too few to tell
    assert costs.of([one]) == pytest.approx([0.003])
    costs.note([other], 64, 4, 0.02)  # answers were slower than this run as a whole
    assert costs.of([other]) == pytest.approx([0.01 / 64])


def test_what_answers_took_counts_more_than_what_a_prompt_did():
    """One whose long beginning was in the prefix cache has attention to all of it: its first tokens are no measure of others'."""
    costs, deep = Costs(), types.SimpleNamespace(token_seconds=0.0)
    costs.note([deep], 100, 16, 1.6)
    assert costs.answers(16) == pytest.approx(16 * 0.016)  # nothing better is known
    costs.note([], 0, 16, 0.05)
    assert costs.answers(16) == pytest.approx(0.05)


def test_answers_are_expected_to_be_as_long_as_those_before():
    lengths, task = AnswerLength(), types.SimpleNamespace(answers=True, history=[1] * 50, stats=types.SimpleNamespace(), left=None)

    def end(done: int, left: int = 10_000) -> int:
        task.stats.generated_tokens, task.left = done, lambda context: left
        return lengths.positions(task, 8192)

    assert end(0) == 306 and end(0, left=20) == 70 and end(100) == 206
    for _ in range(100):
        lengths.note(40)
    assert end(0) == 90 and end(39) == 69 and end(40) == 70 and end(400) == 250
    task.history = [1] * 8190
    assert end(0) == 8192
    task.answers = False
    assert end(0) == 8190


# under load

COSTS = {1: 0.0175, 2: 0.028, 4: 0.045, 8: 0.082, 16: 0.12, 32: 0.185, 64: 0.28, 128: 0.48, 256: 0.9, 512: 1.75}  # a 1B, 2 cores


class Timed(Step):
    """Always the same token, as a model of a billion parameters takes for it. `position`: seconds of a token's attention to one."""

    def __init__(self, clock: Clock, speed: float, limits: StepLimits, position: float):
        head = Logits(View(Buffer("x", 8), 0, 8), "output.weight")
        super().__init__(Program((head,), {}, (FULL,), VOCAB), limits)
        self.buffer_bytes, self.clock, self.speed, self.position = 0, clock, speed, position
        self.carried: list[int] = []
        self.row = np.eye(VOCAB, dtype=np.float32)[5]

    def _run(self, batch):
        self.clock.now += float(np.interp(len(batch.tokens), list(COSTS), list(COSTS.values()))) / self.speed
        self.clock.now += self.position * float(batch.positions.sum())
        self.carried.append(len(batch.tokens))
        return np.tile(self.row, (len(batch.outputs), 1))

    def _hidden(self, view, which):
        raise NotImplementedError

    _read = _write = _hidden

    def _grow(self, group, count): ...
    def _put_table(self, group, row, first, ids): ...
    def _copy(self, group, pairs, positions): ...
    def _close(self): ...


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Load:
    """Clients that ask one after the other; what they saw. `beside`: the length of a prompt that comes after two seconds."""

    def __init__(self, monkeypatch, clients, requests, prompt, limit, speed=1.0, positions=32768, beside=0, position=0.0):
        self.clock = Clock()
        for module in (admission, request, scheduler, steady, stream):
            if hasattr(module, "time"):
                monkeypatch.setattr(module, "time", self.clock)
        self.step = step = Timed(self.clock, speed, StepLimits(8192, 512, 16, positions), position)
        self.engine, self.random = Engine(step, VOCAB, 8192), np.random.default_rng(1)
        self.firsts, self.gaps, self.beside, self.asked = [], [], None, 0
        live = [self.ask(prompt, limit) for _ in range(clients)]
        left = requests - clients
        while live:
            if beside and self.beside is None and self.clock.now > 2:
                self.beside = self.ask(beside, 8)[0]
            self.engine.advance()
            for each in live:
                answer, asked, last = each
                if answer.take():
                    (self.gaps if last else self.firsts).append(self.clock.now - (last or asked))
                    each[2] = self.clock.now
            ended = sum(each[0].task.done for each in live)
            live = [each for each in live if not each[0].task.done]
            live += [self.ask(prompt, limit) for _ in range(min(ended, left))]
            left -= ended

    def ask(self, prompt, limit):
        ids = self.random.integers(0, VOCAB, prompt() if callable(prompt) else prompt).tolist()
        sampling = Sampling(temperature=0, max_tokens=limit() if callable(limit) else limit, logprobs=1)
        self.asked += len(ids) + (sampling.max_tokens or 0)
        return [self.engine.submit(Request(ids, sampling, responsive=True)), self.clock.now, 0.0]

    @property
    def ran(self) -> int:
        return sum(tokens * count for tokens, count in self.engine.scheduler.counters.runs.items())


def quantile(values, share):
    return sorted(values)[int(len(values) * share)]


@pytest.mark.parametrize(("clients", "first"), [(4, 1.0), (8, 1.0), (16, 4.0)])
def test_first_tokens_come_soon_and_gaps_stay_short(monkeypatch, clients, first):
    """With an equal share for each prompt, and a tenth of a second for all of them, these were 1.2, 1.6 and 10.7 s."""
    load = Load(monkeypatch, clients, 3 * clients, 150, 32)
    assert quantile(load.firsts, 0.5) < first
    assert quantile(load.gaps, 0.99) <= 0.3 and len(load.gaps) == 3 * clients * 31


def test_a_long_prompt_neither_stops_answers_nor_waits_for_ever(monkeypatch):
    load = Load(monkeypatch, 8, 200, 150, 64, speed=7, beside=8000)
    assert quantile(load.gaps, 0.99) < 0.2 and max(load.gaps) < 0.3
    assert load.beside.task.done and load.beside.task.error is None


def test_a_deep_prompt_comes_in_smaller_pieces(monkeypatch):
    """As SmolLM2 on two cores that others use too: a token at position 6,000 takes five times as long as at
    the beginning."""
    load = Load(monkeypatch, 4, 4, 40, 1000, speed=4, beside=6500, position=0.7e-6)
    task = load.beside.task
    assert task.done and task.error is None and len(load.gaps) == 4 * 999
    assert quantile(load.gaps, 0.99) < 0.16 and max(load.gaps) < 0.2
    alone = Load(monkeypatch, 1, 1, 6500, 2, speed=4, position=0.7e-6)
    assert task.stats.prompt_seconds < 1.35 * alone.firsts[0]


def test_a_long_prompt_alone_comes_in_long_pieces(monkeypatch):
    """Also once another one has been read beside answers."""
    load = Load(monkeypatch, 2, 2, 40, 300, speed=7, beside=3000, position=0.2e-6)
    load.step.carried.clear()
    load.asked = load.ask(6000, 1)
    while not load.asked[0].task.done:
        load.engine.advance()
    assert max(load.step.carried) == 512 and len(load.step.carried) < 20


@pytest.mark.parametrize(
    ("prompt", "limit", "positions", "requests"),
    [(2000, 64, 32768, 48), (8000, 100, 32768, 20), (None, None, 8192, 64)],
    ids=["2,000 tokens", "8,000 tokens", "all lengths"],
)
def test_more_than_the_kv_cache_holds_waits_in_the_queue_and_not_within_answers(monkeypatch, prompt, limit, positions, requests):
    """Sequences that were admitted and had to make room waited up to 17 s between two tokens, and ran twice."""
    random = np.random.default_rng(5)
    prompt = prompt or (lambda: int(random.integers(50, 900)))
    limit = limit or (lambda: int(random.integers(20, 500)))
    load = Load(monkeypatch, 16, requests, prompt, limit, speed=7, positions=positions)
    assert max(load.gaps) < 0.3 and load.engine.scheduler.counters.preemptions == 0
    assert len(load.firsts) == requests and load.ran <= load.asked - requests  # nothing ran twice; the last token never runs
