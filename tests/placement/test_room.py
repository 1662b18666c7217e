"""Which level of giving up is taken for a model."""

from __future__ import annotations

import pytest

from lacewing.errors import OutOfMemoryError
from lacewing.options import REFERENCE, LoadOptions
from lacewing.placement import room
from lacewing.placement.info import ModelInfo
from lacewing.placement.room import Level, first_fit, put_aside
from lacewing.weights.machine import Machine


@pytest.fixture
def info(tiny_path):
    return ModelInfo(tiny_path, LoadOptions(REFERENCE, context=256))


def machine(monkeypatch, available: int) -> None:
    monkeypatch.setattr("lacewing.weights.this_machine", lambda: Machine(2**34, available, "the free memory"))


def test_the_first_that_is_fast_enough(info, monkeypatch):
    """The plan takes 8.9 MB with eager weights, 8.1 MB without, and a fifth more than that has to be free for eager ones."""
    levels = [Level(0), Level(3 << 20), Level(20 << 20, for_speed=False)]
    for available, index, residency in ((20 << 20, 0, "eager"), (9 << 20, 1, "eager"), (17 << 19, 1, "eager")):
        machine(monkeypatch, available)
        found, placement = first_fit(info, levels)
        assert (found, placement.plan.residency) == (index, residency)
    levels[1] = Level(1 << 20)
    found, placement = first_fit(info, levels)
    assert (found, placement.plan.residency) == (0, "lazy")  # the last level is not for speed


def test_what_costs_much_is_for_fitting_only(info, monkeypatch):
    machine(monkeypatch, 1 << 20)
    assert first_fit(info, [Level(0), Level(1 << 20), Level(20 << 20, for_speed=False)])[0] == 2
    with pytest.raises(OutOfMemoryError, match="KV cache"):
        first_fit(info, [Level(0), Level(1 << 20)])


def test_the_memory_option_is_for_all_models(info):
    options = LoadOptions(REFERENCE, context=256, memory_bytes=10_000_000)
    index, placement = first_fit(info, [Level(0, kept=9_999_999), Level(0, kept=5_000_000), Level(0, kept=0)], options)
    assert index == 2 and placement.options.memory_bytes == 10_000_000
    with pytest.raises(OutOfMemoryError, match="the models that are here use"):
        first_fit(info, [Level(kept=10_000_000)], options)


def test_a_model_of_no_use_cannot_be_put_aside():
    class Broken:
        weights = None

        def set_residency(self, residency, *, force, reason):
            raise RuntimeError("the driver says no")

    assert put_aside(Broken(), "room") is False and room.put_aside is put_aside
