"""Looking ahead is used while it pays, and only then."""

import pytest

from lacewing.weights.experts import trial as trial_module
from lacewing.weights.experts.trial import TURN, TURNS, Trial


class Clock:
    now, guessed = 0.0, 0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(trial_module.time, "perf_counter", clock.perf_counter)
    return clock


def runs(trial, clock, count, with_guesses, without, tokens=1, guesses=1):
    """How many of them wanted guesses, and got so many."""
    wanted = 0
    for number in range(count):
        trial.begin()
        wanted += trial.wanted
        clock.guessed += guesses if trial.wanted else 0
        clock.now += (with_guesses if trial.wanted else without) * (1 + 0.001 * number) * tokens  # it gets slower all the time
        clock.now += 50 if number % 20 == 7 else 0  # the disk hangs
        trial.end(tokens, clock.guessed)
    return wanted


def test_it_is_switched_off_if_it_does_not_pay(clock):
    trial = Trial()
    assert runs(trial, clock, 16, 1, 1) == 0 and trial.verdict == "measuring"  # slots fill
    assert runs(trial, clock, TURN * TURNS, 0.99, 1.0) == TURN * TURNS // 2
    assert trial.verdict == "off" and "switched off" in str(trial)
    assert runs(trial, clock, 1000, 0.5, 1.0) == 0


def test_it_is_used_while_it_pays_and_looked_at_again(clock):
    trial = Trial()
    runs(trial, clock, 16 + TURN * TURNS, 0.8, 1.0)
    assert trial.verdict == "pays" and trial.rates[0] > 1.2 * trial.rates[1]
    assert runs(trial, clock, TURN * TURNS, 0.8, 1.0) == TURN * TURNS * 7 // 8
    assert trial.verdict == "pays"
    runs(trial, clock, TURN * TURNS, 1.1, 1.0)
    assert trial.verdict == "off"


def test_prompts_are_not_counted(clock):
    trial = Trial()
    assert runs(trial, clock, 1000, 1.0, 1.0, tokens=512) == 0 and trial.verdict == "measuring"


def test_runs_of_different_sizes_are_not_compared(clock):
    """Guesses pay for runs of one token and for runs of eight; all times together would say that they do not."""
    trial = Trial()
    runs(trial, clock, 16, 1, 1)
    while trial.verdict == "measuring":
        many = trial._runs // TURN % 4 in (0, 3)  # whenever there are no guesses
        many ^= trial._runs % 4 == 0
        runs(trial, clock, 1, 0.3 if many else 0.8, 0.4 if many else 1.0, tokens=8 if many else 1)
        assert trial._runs < 4 * TURN * TURNS
    assert trial.verdict == "pays" and 1.2 < trial.rates[0] / trial.rates[1] < 1.4


def test_nothing_is_decided_without_guesses_or_with_too_few_runs_of_a_size(clock):
    trial = Trial()
    runs(trial, clock, 16 + 3 * TURN * TURNS, 1.0, 1.0, guesses=0)  # all that was chosen is in RAM
    assert trial.verdict == "measuring" and trial.rates is None and str(trial) == "being measured"
    for number in range(TURN * TURNS):
        runs(trial, clock, 1, 1.0, 1.0, tokens=1 + number % 31)
    assert trial.verdict == "measuring"
    runs(trial, clock, TURN * TURNS, 0.8, 1.0)
    assert trial.verdict == "pays"


def test_a_model_of_which_nothing_can_be_guessed(clock):
    trial = Trial()
    trial.rule_out()
    assert runs(trial, clock, 1000, 0.5, 1.0) == 0 and trial.verdict == "impossible" and "no layer's router" in str(trial)
