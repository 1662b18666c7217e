"""/model: what cannot be a model is refused, what was parked comes back, memory does not grow."""

import dataclasses
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from lacewing.api import Model
from lacewing.chat.services import swap
from lacewing.chat.services.evict import MAX_PARKED, SwapPlan, change_residency, plan_swap
from lacewing.chat.services.opening import list_models, model_names
from lacewing.chat.services.swap import change_model
from lacewing.errors import (
    Cancelled,
    DownloadError,
    LacewingError,
    ModelFormatError,
    OptionError,
    OutOfMemoryError,
    TokenizerError,
    UnsupportedModelError,
)
from lacewing.placement.info import ModelInfo
from lacewing.placement.place import place
from lacewing.placement.requirements import requirements
from lacewing.weights.machine import Machine
from tests.chat.conftest import say
from tests.chat.faults import STEPS, cancelling, failing
from tests.checkpoint_files import write_gguf
from tests.checkpoints import config_of, tiny, weights_of
from tests.timing import in_time, timely
from tests.weights.experts.packs import packed


@pytest.fixture
def expected(start):
    """The answers of a session in which nothing goes wrong."""
    session = start()
    return [say(session, "Hello"), say(session, "And you?")]


def hopeless(kind, paths, folder):
    """A path that cannot become a model, and the error that says so."""
    whole = paths["gemma"].read_bytes()
    target = folder / f"{kind}.gguf"
    if kind == "missing":
        return target, DownloadError
    if kind == "truncated":
        target.write_bytes(whole[: len(whole) // 2])
        return target, ModelFormatError
    if kind == "text":
        target.write_text("This is no model.\n" * 100)
        return target, ModelFormatError
    if kind == "empty":
        target.write_bytes(b"")
        return target, ModelFormatError
    if kind == "architecture":
        target.write_bytes(whole.replace(b"gemma3", b"gemma9"))
        return target, UnsupportedModelError
    broken = tiny("qwen3", "huggingface", folder)
    (broken / "tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": 3}}')
    return broken, TokenizerError


@pytest.mark.parametrize("kind", ["missing", "truncated", "text", "empty", "architecture", "tokenizer"])
def test_what_is_no_model_is_refused(kind, start, paths, tmp_path, expected):
    session = start()
    assert say(session, "Hello") == expected[0]
    path, error = hopeless(kind, paths, tmp_path)
    before = session.loaded, list(session.messages), list(session.model.engine.cached)
    with pytest.raises(error):
        change_model(session, str(path))
    assert (session.loaded, session.messages, session.model.engine.cached) == before and not session.parked
    assert say(session, "And you?") == expected[1]
    assert session.stats["reused_tokens"] > 0


@pytest.mark.parametrize("after", [0, 1, 2, 3, 5, 8])
def test_ctrl_c_in_the_middle(after, start, paths, expected):
    session = start(residency="eager")
    say(session, "Hello")
    with cancelling(session, after), pytest.raises(Cancelled):
        change_model(session, str(paths["gemma"]))
    assert session.model.weights.residency == "eager"
    assert say(session, "And you?") == expected[1]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError, RuntimeError])
def test_whatever_is_raised_the_old_model_stays(step, error, start, paths, expected):
    """Not only errors of ours: a second Ctrl-C, a full heap, a disk, a fault in a library."""
    session = start(residency="eager")
    say(session, "Hello")
    before = session.current
    for when in ("before", "after"):
        with failing(step, when, error), pytest.raises(error):
            change_model(session, str(paths["gemma"]))
    assert session.current is before and session.model.weights.residency == "eager" and not session.parked
    assert say(session, "And you?") == expected[1]
    assert change_model(session, str(paths["gemma"]))[0].startswith("now")


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


def test_changes_of_the_current_model(start, paths):
    session = start()
    say(session, "Hello")
    assert change_model(session, str(paths["llama"])) == [f"{paths['llama']} is the current model"]
    change_model(session, str(paths["llama"]), residency="lazy")
    assert session.model.weights.residency == "lazy" and not session.parked
    change_model(session, str(paths["llama"]), backend="reference", context=128)
    assert (session.model.backend.name, session.model.spec.context, len(session.parked)) == ("reference", 128, 1)
    assert isinstance(say(session, "More"), str)
    with pytest.raises(OptionError, match="no model is parked"):
        change_model(start(), "-")


def test_short_names(start, paths, tmp_path, monkeypatch):
    """A model that is here is listed by its name without folders, and found by it; so is one beside the current one."""
    monkeypatch.chdir(tmp_path)
    session, short = start(), {name: path.name for name, path in paths.items()}
    change_model(session, str(paths["gemma"]))
    listed = {row[1]: row[0] for row in list_models(session)}
    assert (listed[short["llama"]], listed[short["gemma"]], listed[short["qwen"]]) == ("parked", "*", "")
    assert short["llama"] in model_names(session)
    assert change_model(session, short["gemma"]) == [f"{paths['gemma']} is the current model"]
    assert change_model(session, short["llama"])[0].startswith("back to")
    assert change_model(session, short["gemma"], context=64)[0].startswith("now")
    assert change_model(session, short["qwen"])[0].startswith("now") and session.model.path == paths["qwen"]
    other = tmp_path / short["gemma"]
    (tmp_path / "other").mkdir()
    other.symlink_to(tiny("qwen3", "gguf", tmp_path / "other"))  # a path that exists means itself
    change_model(session, short["gemma"])
    assert session.model.spec.architecture == "qwen3" and [each.short_name for each in session.parked].count(short["gemma"]) == 1
    assert {str(paths["gemma"]), other.name} <= {row[1] for row in list_models(session)}
    with pytest.raises(DownloadError):
        change_model(session, "no-such.gguf")


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


def test_the_current_model_whose_file_changed(start, paths, tmp_path):
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(paths["llama"].read_bytes())
    session = start("gemma")
    change_model(session, str(copy), residency="lazy")
    os.utime(copy, (1, 1))
    lines = change_model(session, str(copy))
    assert lines[0].startswith("now") and lines[-1].endswith("could not be parked and was closed")
    assert say(session, "Hello") is not None


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


def test_a_model_without_a_template(start, tmp_path, monkeypatch):
    config = config_of("llama") | {"max_position_embeddings": 512}
    monkeypatch.setattr("tests.checkpoint_files.tokens.TEMPLATE", "")
    path = write_gguf(tmp_path / "base.gguf", config, weights_of(config))
    session = start("gemma")
    from lacewing.chat.session.formatter import ChatFormatter

    assert isinstance(session.formatter, ChatFormatter)
    lines = change_model(session, str(path))
    assert say(session, "Hello") is not None and lines


@pytest.mark.parametrize("kept", [True, False])  # back and forth, or opened anew each time
def test_memory_after_fifty_swaps(kept, paths):
    swap_fifty_times(kept, paths["llama"], paths["gemma"])


@pytest.mark.slow
@pytest.mark.parametrize("kept", [True, False])
def test_memory_after_fifty_swaps_of_real_models(kept, smollm2_path, gemma3_path):
    swap_fifty_times(kept, smollm2_path, gemma3_path)


def swap_fifty_times(kept, *models):
    """In a process of its own, where nothing else takes or frees memory."""
    code = f"""
import gc, sys
from lacewing.chat.services.opening import open_session
from lacewing.chat.services.evict import MAX_PARKED
from lacewing.chat.services.opening import list_models, model_names
from lacewing.chat.services.swap import change_model
from lacewing.options import LoadOptions, Sampling
from lacewing.weights.machine import process_bytes
session = open_session(sys.argv[1], LoadOptions("cpu", context=512, residency="eager"), Sampling(temperature=0, max_tokens=6))
list(session.say("Hello"))
for count in range(50):
    if not {kept}:
        session.drop_parked()
    change_model(session, sys.argv[2 - count % 2])
    if count in (0, 1, 48, 49):  # the first and the last to each of the two
        gc.collect()
        print(process_bytes())
session.close()
"""
    words = [sys.executable, "-c", code, *map(str, models)]
    numbers = list(map(int, subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()))
    for first, last in zip(numbers[:2], numbers[2:], strict=True):
        assert last <= 1.05 * first, f"{first / 2**20:.1f} MiB, then {last / 2**20:.1f} MiB"


def test_lazy_and_eager(start, monkeypatch):
    session = start(residency="eager")
    say(session, "Hello")
    before = session.model.engine.logits([1, 2, 3]).copy()
    steps = []
    session.ui.progress = lambda what, done, total: steps.append((what, done, total))
    assert "eager -> lazy" in change_residency(session, "lazy")[0]
    assert np.array_equal(session.model.engine.logits([1, 2, 3]), before)
    with cancelling(session, 1), pytest.raises(Cancelled):
        change_residency(session, "eager")
    assert session.model.weights.residency == "lazy" and session.model.weights.anonymous_bytes == 0
    steps.clear()
    assert "RAM" in change_residency(session, "eager")[0]
    assert steps[-1] == ("reading weights", session.model.weights.nbytes, session.model.weights.nbytes)
    assert change_residency(session, "eager") == ["the weights are already eager"]
    change_residency(session, "lazy")
    monkeypatch.setattr("lacewing.weights.this_machine", lambda: Machine(2**34, -(2**25), "nothing"))
    with pytest.raises(OutOfMemoryError, match="nothing was changed"):
        change_residency(session, "eager")
    assert session.model.weights.residency == "lazy"
    change_residency(session, "eager", force=True)
    assert session.model.weights.residency == "eager"
    with pytest.raises(LacewingError, match="must be lazy, eager or streamed"):
        change_residency(session, "auto")
