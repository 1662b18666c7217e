"""/model: what is given up so that another model has room, and what if there is none."""

import dataclasses
import re

import pytest

from lacewing.api import Model
from lacewing.chat.services import swap
from lacewing.chat.services.evict import SwapPlan, plan_swap
from lacewing.chat.services.swap import change_model
from lacewing.errors import (
    ModelFormatError,
    OutOfMemoryError,
)
from lacewing.placement.info import ModelInfo
from lacewing.placement.place import place
from lacewing.placement.requirements import requirements
from lacewing.weights.machine import Machine
from tests.chat.conftest import say
from tests.checkpoints import tiny
from tests.weights.experts.packs import packed


def test_one_that_does_not_fit(start, paths, monkeypatch, expected):
    session = start(residency="eager")
    say(session, "Hello")
    monkeypatch.setattr("lacewing.weights.this_machine", lambda: Machine(2**34, 2**20, "a small machine"))
    with pytest.raises(OutOfMemoryError, match="a small machine"):
        change_model(session, str(paths["gemma"]), context=2000)
    assert session.model.weights.residency == "eager" and not session.parked
    assert say(session, "And you?") == expected[1]


def room_for(session, path, available, monkeypatch):
    monkeypatch.setattr("lacewing.weights.this_machine", lambda: Machine(2**34, available, "the free memory"))
    options = dataclasses.replace(session.options, residency="auto")
    return plan_swap(ModelInfo(path, options), session.loaded, session.parked)


def test_what_is_given_up_for_room(start, paths, monkeypatch):
    session = start(residency="eager")
    roomy = room_for(session, paths["gemma"], 2**30, monkeypatch)
    assert (roomy.plan.residency, roomy.shrink, roomy.drop_current) == ("eager", False, False)
    needed = requirements(ModelInfo(paths["gemma"], session.options), session.model.backend).fixed_bytes
    eager = session.model.weights.anonymous_bytes
    tight = room_for(session, paths["gemma"], needed - eager // 2, monkeypatch)
    assert tight.shrink and not tight.drop_current and tight.plan.residency == "lazy"
    with pytest.raises(OutOfMemoryError):
        room_for(session, paths["gemma"], -(2**25), monkeypatch)


def test_the_memory_option_counts_what_is_here(start, paths):
    session = start(memory_bytes=12 * 2**20)
    with pytest.raises(OutOfMemoryError, match="memory option"):
        change_model(session, str(paths["gemma"]), context=100_000)
    assert say(session, "Hello")


def test_a_new_model_takes_of_the_memory_option_what_the_others_leave(start, paths):
    """Its weights would fit in RAM if it were alone."""
    session = start(residency="auto")
    session.model.set_residency("lazy", force=True)
    here = session.model.memory_bytes
    alone = requirements(ModelInfo(paths["gemma"], session.options), session.model.backend)
    most = here + alone.fixed_bytes + alone.weight_bytes // 2
    assert most > alone.fixed_bytes + alone.weight_bytes
    session.options = dataclasses.replace(session.options, memory_bytes=most)
    change_model(session, str(paths["gemma"]))
    assert session.model.plan.budget_bytes == most - here
    assert session.model.weights.residency == "lazy" and len(session.parked) == 1
    assert session.model.memory_bytes + session.parked[0].model.memory_bytes <= session.options.memory_bytes


def test_one_that_cannot_be_parked_is_closed(start, paths, monkeypatch):
    session = start(residency="eager")
    say(session, "Hello")
    old, change = session.model, Model.set_residency

    def refuse(self, *arguments, **options):
        if self is old:
            raise ModelFormatError("x", "was changed")
        change(self, *arguments, **options)

    monkeypatch.setattr(Model, "set_residency", refuse)
    assert "could not be parked" in change_model(session, str(paths["gemma"]))[-1]
    assert session.parked == [] and len(session.messages) == 2 and isinstance(say(session, "More"), str)


def test_no_room_for_both(start, paths, monkeypatch):
    session = start(residency="eager")
    say(session, "Hello")
    change_model(session, str(paths["qwen"]))
    placement = place(ModelInfo(paths["gemma"], session.options))
    monkeypatch.setattr(swap, "plan_swap", lambda *_: SwapPlan(placement, 0, shrink=True, drop_parked=True, drop_current=True))
    lines = change_model(session, str(paths["gemma"]))
    assert session.parked == [] and session.model.weights.residency == "lazy"
    assert any("does not hold both models" in line for line in lines) and "could not be parked" in lines[-1]
    assert say(session, "More") is not None and len(session.messages) == 4


def test_the_model_again_whose_pack_is_gone(start, paths, tmp_path, monkeypatch):
    """Where the old weights have to become lazy for the new ones."""
    monkeypatch.setitem(paths, "mixture", tiny("qwen3moe", "gguf", tmp_path, "Q4_0"))
    pack = packed(paths["mixture"])
    session = start("mixture", residency="streamed")
    answer, before = say(session, "Hello"), session.model
    assert before.weights.experts.pack.path == pack
    pack.unlink()
    with pytest.raises(ModelFormatError, match=re.escape(str(pack))):
        say(session, "And you?")
    placement = place(ModelInfo(paths["mixture"], session.options))
    monkeypatch.setattr(swap, "plan_swap", lambda *_: SwapPlan(placement, 0, shrink=True, drop_parked=True))
    assert change_model(session, str(paths["mixture"]))[0].startswith("now")
    assert session.model is not before and session.model.weights.experts.pack is None
    assert say(session, "Go on") and session.messages[1]["content"] == answer
