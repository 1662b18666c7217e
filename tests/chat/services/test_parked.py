"""Models that /model has parked: they come back as they were, or stay where they are."""

import os
import time

import pytest

from lacewing.api import Model
from lacewing.chat.services import swap
from lacewing.chat.services.evict import MAX_PARKED
from lacewing.chat.services.swap import change_model
from lacewing.errors import (
    ModelFormatError,
)
from tests.chat.conftest import say
from tests.timing import in_time, timely


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError, ModelFormatError])
def test_whatever_is_raised_the_parked_model_stays(error, start, paths, monkeypatch):
    session = start()
    say(session, "Hello")
    change_model(session, str(paths["gemma"]))
    before, parked = session.current, list(session.parked)

    def fail(self, *arguments, **options):
        raise ModelFormatError("x", "it fails") if error is ModelFormatError else error("it fails")

    for target, name in ((swap, "read_history"), (Model, "set_residency")):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, fail)
            with pytest.raises(error):
                change_model(session, "-", residency="eager")
        assert session.current is before and session.parked == parked
    assert say(session, "And you?") and change_model(session, "-")[0].startswith("back to") and say(session, "More")


def test_back_without_reading_again(start, paths):
    session = start(residency="eager")
    say(session, "Hello " * 20)
    cached = list(session.model.engine.cached)
    change_model(session, str(paths["gemma"]))
    assert session.parked[0].model.weights.residency == "lazy"
    lines = change_model(session, "-")
    assert lines[0].startswith("back to") and session.model.engine.cached[: len(cached) - 8] == cached[: len(cached) - 8]
    say(session, "Go on")
    assert session.stats["reused_tokens"] >= len(cached) - 8
    change_model(session, "-", residency="eager")
    assert session.model.spec.architecture == "gemma3" and session.model.weights.residency == "eager"
    assert change_model(session, str(paths["llama"]))[0].startswith("back to")  # by its path as well


@timely
def test_back_at_once(start, paths):
    session = start(context=2048)
    say(session, "Hello world. " * 80)
    change_model(session, str(paths["gemma"]))
    began = time.perf_counter()
    change_model(session, "-")
    in_time(time.perf_counter() - began, 0.1)


def test_a_parked_model_whose_file_changed(start, paths, tmp_path):
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(paths["llama"].read_bytes())
    session = start("gemma")
    change_model(session, str(copy))
    change_model(session, "-")
    os.utime(copy, (1, 1))
    with pytest.raises(ModelFormatError, match="changed"):
        change_model(session, "-")
    assert session.model.spec.architecture == "gemma3" and say(session, "Hello") is not None
    assert change_model(session, str(copy))[0].startswith("now")  # its path opens it anew, as the error says
    assert [each.model.spec.architecture for each in session.parked] == ["gemma3"] and len(session.messages) == 2
    assert say(session, "More") is not None


def test_back_in_another_way(start, paths):
    session = start()
    say(session, "Hello")
    change_model(session, str(paths["gemma"]))
    lines = change_model(session, "-", context=64)
    assert lines[0].startswith("now") and session.model.spec.architecture == "llama" and session.model.spec.context == 64
    assert len(session.messages) == 2


def test_only_a_few_models_are_kept(start, paths, tmp_path):
    session = start()
    for name in ("gemma", "qwen", "llama"):
        copy = tmp_path / name
        if paths[name].is_file():
            copy.write_bytes(paths[name].read_bytes())
            change_model(session, str(copy))
        else:
            change_model(session, str(paths[name]))
    assert len(session.parked) == MAX_PARKED
