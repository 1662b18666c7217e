"""/model: what cannot be a model is refused, and whatever is raised the old model stays."""

import os

import pytest

from lacewing.chat.services.opening import list_models, model_names
from lacewing.chat.services.swap import change_model
from lacewing.errors import (
    Cancelled,
    DownloadError,
    ModelFormatError,
    OptionError,
    TokenizerError,
    UnsupportedModelError,
)
from tests.chat.conftest import say
from tests.chat.faults import STEPS, cancelling, failing
from tests.checkpoint_files import write_gguf
from tests.checkpoints import config_of, tiny, weights_of


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


def test_the_current_model_whose_file_changed(start, paths, tmp_path):
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(paths["llama"].read_bytes())
    session = start("gemma")
    change_model(session, str(copy), residency="lazy")
    os.utime(copy, (1, 1))
    lines = change_model(session, str(copy))
    assert lines[0].startswith("now") and lines[-1].endswith("could not be parked and was closed")
    assert say(session, "Hello") is not None


def test_a_model_without_a_template(start, tmp_path, monkeypatch):
    config = config_of("llama") | {"max_position_embeddings": 512}
    monkeypatch.setattr("tests.checkpoint_files.tokens.TEMPLATE", "")
    path = write_gguf(tmp_path / "base.gguf", config, weights_of(config))
    session = start("gemma")
    from lacewing.chat.session.formatter import ChatFormatter

    assert isinstance(session.formatter, ChatFormatter)
    lines = change_model(session, str(path))
    assert say(session, "Hello") is not None and lines
