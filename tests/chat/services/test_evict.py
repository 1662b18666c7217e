"""A model that had to leave the GPU: it comes back, or goes on with the CPU, or is closed and says so. Never anything between."""

import os

import pytest

from lacewing.api import Model
from lacewing.chat.commands.table import load_commands, run_line
from lacewing.chat.services import autosave, evict, files, swap
from lacewing.chat.services.swap import change_model
from lacewing.chat.session.models import Closed, ModelClosedError, OnDevice
from lacewing.errors import BackendError, Cancelled, LacewingError, NumericError, OutOfMemoryError
from tests.chat.conftest import say

ERRORS = [BackendError, OutOfMemoryError, NumericError, Cancelled, MemoryError, OSError, RuntimeError]


@pytest.fixture
def chat(chat_on_gpu, monkeypatch, tmp_path):
    """On a GPU that has no room for a second model; something has been said."""
    monkeypatch.setenv("LACEWING_SESSIONS", str(tmp_path / "sessions"))
    say(chat_on_gpu, "hello")
    device = chat_on_gpu.model.backend.device
    held = device.allocated
    monkeypatch.setattr(type(chat_on_gpu.model.backend), "room_bytes", lambda backend: 2 * held - device.allocated)
    return chat_on_gpu


def raising(error):
    def fail(*arguments, **options):
        raise error("it fails")

    return fail


@pytest.mark.parametrize("error", [*ERRORS, KeyboardInterrupt])
def test_it_comes_back_whatever_the_next_one_raised(chat, paths, monkeypatch, error):
    device, model = chat.model.backend.device, chat.model
    held, left = device.allocated, []
    with monkeypatch.context() as patch:
        patch.setattr(swap.Swap, "load", lambda self, *_: left.append(chat.current) or raising(error)())
        with pytest.raises(error):
            change_model(chat, str(paths["gemma"]))
    assert isinstance(left[0], Closed) and isinstance(chat.current, OnDevice)
    assert chat.model is model and 0 < device.allocated <= held and chat.status().backend == "webgpu"
    assert say(chat, "still there?") and len(chat.messages) == 4
    assert change_model(chat, str(paths["gemma"]))[0].startswith("now")


@pytest.mark.parametrize("error", ERRORS)
def test_it_goes_on_with_the_cpu_whatever_the_way_back_raised(chat, paths, monkeypatch, error):
    device = chat.model.backend.device
    with monkeypatch.context() as patch:
        patch.setattr(swap.Swap, "load", raising(OutOfMemoryError))
        patch.setattr(Model, "return_to_device", raising(error))
        with pytest.raises(OutOfMemoryError):
            change_model(chat, str(paths["gemma"]))
    assert chat.status().backend == "cpu" and device.allocated == 0
    assert "could not go back to the GPU (it fails); it is on the CPU now" in chat.notices[-1]
    assert say(chat, "still there?") and len(chat.messages) == 4
    assert change_model(chat, str(paths["gemma"]), backend="cpu")[0].startswith("now")


def closed(chat, paths, monkeypatch, error):
    """Neither the GPU nor the CPU takes it back."""
    with monkeypatch.context() as patch:
        patch.setattr(swap.Swap, "load", raising(OutOfMemoryError))
        patch.setattr(Model, "return_to_device", raising(error))
        patch.setattr(evict, "ModelInfo", raising(MemoryError))
        with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else OutOfMemoryError):
            change_model(chat, str(paths["gemma"]))
    assert isinstance(chat.current, Closed)


# What was raised is forgotten by the time that the next one comes: each with one of the two ways on.
@pytest.mark.parametrize(("error", "name"), [*zip([*ERRORS, KeyboardInterrupt], ["llama", "gemma"] * 4, strict=True)])
def test_one_that_is_closed_says_how_to_go_on(chat, paths, monkeypatch, error, name):
    """The conversation stays; the same model or another one continues it."""
    before = [dict(message) for message in chat.messages]
    closed(chat, paths, monkeypatch, error)
    assert (chat.status().residency, chat.status().backend) == ("closed", "no backend")
    with pytest.raises(ModelClosedError, match=f"is closed: .*; /model {paths['llama']} loads it again, /model PATH another one"):
        say(chat, "still there?")
    assert chat.messages == before
    assert error is KeyboardInterrupt or "nor to the CPU (it fails)" in chat.notices[-1]
    lines = change_model(chat, str(paths[name]))
    assert lines[0].startswith("now") and not any("could not be parked" in line for line in lines)
    assert say(chat, "and now?") and chat.messages[:2] == before and len(chat.messages) == 4


def test_every_command_with_a_closed_model(chat, paths, monkeypatch, tmp_path):
    """Works, or is refused with an error of ours."""
    say(chat, "and you?")
    closed(chat, paths, monkeypatch, OSError)
    monkeypatch.chdir(tmp_path)
    refused, messages = {}, list(chat.messages)
    for name in load_commands().rows:
        chat.replace([dict(message) for message in messages])
        try:
            reply = run_line(chat, f"/{name}")
            list(reply.stream or ())
        except LacewingError as error:
            refused[name] = error
    needed = {name for name, error in refused.items() if isinstance(error, ModelClosedError)}
    assert needed == set(["continue", "debug", "eager", "experts", "lazy", "memory", "retry", "stream", "verify"])
    assert any(row[0] == "closed" for row in run_line(chat, "/model").data.rows)


def test_a_conversation_with_a_closed_model_is_saved_and_loaded(chat, paths, monkeypatch):
    closed(chat, paths, monkeypatch, OSError)
    before = [dict(message) for message in chat.messages]
    assert "/load autosave-" in autosave.rescue(chat)
    run_line(chat, "/save mine")
    chat.replace([])
    run_line(chat, "/load mine")
    assert chat.messages == before and "mine" in files.names()
    change_model(chat, str(paths["llama"]))
    assert say(chat, "go on")


def test_a_file_that_was_replaced_is_not_read_with_the_old_headers(chat, paths, monkeypatch):
    def replaced(*arguments):
        os.utime(paths["llama"], (1, 1))
        raise OutOfMemoryError("it fails")

    before = paths["llama"].stat()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(swap.Swap, "load", replaced)
            with pytest.raises(OutOfMemoryError):
                change_model(chat, str(paths["gemma"]))
        assert isinstance(chat.current, Closed) and "changed or was replaced" in chat.notices[-1]
        assert change_model(chat, str(paths["llama"]))[0].startswith("now") and say(chat, "and now?")
    finally:
        os.utime(paths["llama"], ns=(before.st_atime_ns, before.st_mtime_ns))
