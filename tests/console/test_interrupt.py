"""Ctrl-C: the first asks, the second leaves, but not who was only impatient."""

import signal
from types import SimpleNamespace

import pytest

from lacewing.console import interrupt
from lacewing.console.interrupt import PATIENCE, Interrupt


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(interrupt, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def press():
    signal.raise_signal(signal.SIGINT)


def test_the_second_one_leaves(clock):
    with Interrupt() as pressed:
        assert not pressed()
        press()
        assert pressed()
        with pytest.raises(KeyboardInterrupt):
            press()


def test_who_is_impatient_stays(clock):
    """Native code may keep Python from hearing of the first one until there are more."""
    with Interrupt(PATIENCE) as pressed:
        for _ in range(5):
            press()
            clock.seconds += PATIENCE / 6
        assert pressed()
        clock.seconds += PATIENCE
        with pytest.raises(KeyboardInterrupt):
            press()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
