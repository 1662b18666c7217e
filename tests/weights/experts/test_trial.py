"""Looking ahead is used while it pays, and only then."""

import pytest

from lacewing.weights.experts import trial as trial_module
from lacewing.weights.experts.trial import TURN, TURNS, Trial


class Clock:
    now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(trial_module.time, "perf_counter", clock.perf_counter)
    return clock


def runs(trial, clock, count, with_guesses, without, tokens=1):
    """How many of them wanted guesses."""
    wanted = 0
    for number in range(count):
        trial.begin()
        wanted += trial.wanted
        clock.now += (with_guesses if trial.wanted else without) * (1 + 0.001 * number) * tokens  # it gets slower all the time
        clock.now += 50 if number % 20 == 7 else 0  # the disk hangs
        trial.end(tokens)
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
