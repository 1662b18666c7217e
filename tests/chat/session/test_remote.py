"""A conversation with a server: Lacewing's own with two tiny models, and one of others."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import pytest

from lacewing.api import Model
from lacewing.chat.client.connection import Connection, ServerError
from lacewing.chat.commands import server
from lacewing.chat.commands.table import load_commands, run_line
from lacewing.chat.services.opening import Beginning, open_remote
from lacewing.chat.session.events import Notice, Ui
from lacewing.chat.session.remote import RemoteSession
from lacewing.errors import Cancelled, ContextOverflowError, LacewingError, OptionError
from lacewing.options import LoadOptions
from tests.chat.client.foreign import chunk, foreign
from tests.chat.conftest import GREEDY, say
from tests.checkpoints import tiny
from tests.server.serving import administered


@pytest.fixture(scope="module")
def address(paths) -> Iterator[str]:
    load = LoadOptions("cpu", context=256, threads=1, sequences=2)
    with administered(paths["llama"], paths["gemma"], load=load) as (address, _):
        yield address


@pytest.fixture
def remote(address: str) -> Iterator[Callable[..., RemoteSession]]:
    opened: list[RemoteSession] = []

    def open_one(name: str | None = None, **first: object) -> RemoteSession:
        opened.append(open_remote(Connection(address), name, GREEDY, first=Beginning(**first)))  # type: ignore[arg-type]
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


def test_the_same_answers_as_here(remote, start):
    """Messages, retries, other texts and continued answers are those of a session with the model itself."""
    there, here = remote(), start("llama", context=256)
    for text in ("Hello there", "And you?"):
        assert say(there, text) == say(here, text)
    for work in ("retry", "continue_"):
        for chat in (there, here):
            for _ in getattr(chat, work)():
                pass
        assert there.messages == here.messages
    for chat in (there, here):
        for _ in chat.say_instead("Something else"):
            pass
        chat.undo()
    assert there.messages == here.messages and len(there.messages) == 2


def test_commands_of_a_server(remote, address):
    chat = remote()
    first, second = [each["id"] for each in chat.listed]
    assert chat.name == first and chat.context == 256 and chat.place == address
    say(chat, "Hello")
    assert f"{first} -> {second}" in run_line(chat, f"/model {second}").text
    say(chat, "And you?")
    assert len(chat.messages) == 4 and chat.status().model == second
    assert run_line(chat, "/lazy on").text.startswith("weights eager -> lazy; RAM ")
    assert run_line(chat, "/lazy on").text == "the weights are already lazy"
    assert run_line(chat, "/lazy").text.startswith("weights lazy -> eager; RAM ")
    before = chat.model["template"]
    assert run_line(chat, "/template raw --force").text == f"template {before} -> raw"
    assert any(row[:2] == ("*", "raw") for row in run_line(chat, "/template").data.rows)
    assert "Hello" in run_line(chat, "/debug").text
    run_line(chat, "/template auto --force")
    assert run_line(chat, "/model").data.rows[1][0] == "*"
    used = {row[0]: row[1] for row in run_line(chat, "/context").data.rows}
    assert used["context"] == "256" and int(used["used by the last answer"]) > 0
    assert run_line(chat, "/stats").data.rows[0][0] == "prompt"
    assert run_line(chat, "/model --context 128").text.startswith("context: 128\n")
    run_line(chat, "/model --context 256")
    assert "/lazy" not in dict(row[:2] for row in run_line(chat, "/settings").data.rows)
    with pytest.raises(LacewingError, match="no mixture of experts"):
        run_line(chat, "/experts")
    with pytest.raises(OptionError, match="/verify is for models of this machine"):
        run_line(chat, "/verify")
    with pytest.raises(OptionError, match="has no model 'nix'"):
        run_line(chat, "/model nix")
    with pytest.raises(ServerError, match="no-such"):
        run_line(chat, "/template no-such")


def test_lazy_goes_back_to_streamed(tmp_path):
    load = LoadOptions("cpu", context=256, threads=1)
    with administered(tiny("qwen3moe", "gguf", tmp_path), load=load) as (address, _):
        chat = RemoteSession(Connection(address))
        assert run_line(chat, "/eager").text == "residency: eager"  # it was not loaded before
        found = [run_line(chat, line).text for line in ("/stream", "/lazy", "/lazy", "/lazy off", "/lazy", "/lazy")]
        chat.connection.close()
    told = ("eager", "streamed", "lazy", "streamed", "eager", "lazy", "eager")
    assert [line.partition(";")[0] for line in found] == [f"weights {was} -> {now}" for was, now in pairwise(told)]


def test_why_a_change_is_refused(remote):
    """Nothing can be streamed of a dense model: the server's reason is told, and nothing has changed."""
    chat = remote()
    run_line(chat, f"/model {chat.name}")
    for line in ("/stream", "/model --streamed", f"/model {chat.listed[1]['id']} --streamed"):
        with pytest.raises(ServerError, match="only mixtures of experts"):
            run_line(chat, line)
    run_line(chat, "/model")
    assert chat.model["residency"] == "eager" and chat.name == chat.listed[0]["id"]


def test_progress_of_a_change_and_cancelling(remote, monkeypatch):
    chat, told, hold = remote(), [], threading.Event()
    run_line(chat, "/eager")
    monkeypatch.setattr(server, "ASK_EVERY", 0.05)
    change = Model.set_residency

    def slow(self, residency, progress=None, cancelled=None, **more):
        progress("reading weights", 1, 2)
        assert hold.wait(30)
        change(self, residency, progress, cancelled, **more)

    monkeypatch.setattr(Model, "set_residency", slow)
    chat.ui = replace(chat.ui, progress=lambda *stage: told.append(stage), cancelled=lambda: ("reading weights", 1, 2) in told)
    with pytest.raises(Cancelled, match="the server goes on with it"):
        run_line(chat, "/lazy on")
    hold.set()
    chat.ui = Ui()
    until = time.monotonic() + 30
    while chat.model["residency"] != "lazy":
        assert time.monotonic() < until
        chat.refresh()
    run_line(chat, "/eager")


def test_every_command_is_explained(remote):
    chat = remote()
    names = load_commands(RemoteSession).rows
    assert {"model", "lazy", "template", "save", "retry", "temperature", "apply"} <= set(names)
    assert not {"verify", "fullsave", "compare", "memory"} & set(names)
    for name in names:
        assert run_line(chat, f"/help {name}").text


def test_saved_and_loaded(remote, start, tmp_path):
    """A file of either kind of chat opens in the other."""
    there = remote(system="Be brief.")
    say(there, "Hello")
    run_line(there, f"/save {tmp_path / 'there.json'}")
    here = start("llama", context=256)
    run_line(here, f"/load {tmp_path / 'there.json'}")
    assert here.messages == there.messages and here.settings.system == "Be brief."
    say(here, "Go on")
    run_line(here, f"/save {tmp_path / 'here.json'}")
    again = remote(load=str(tmp_path / "here.json"))
    assert again.messages == here.messages
    assert run_line(again, "/clear").text.startswith("a new conversation") and not again.messages
    run_line(again, "/undo")
    assert again.messages == here.messages


@pytest.mark.parametrize("policy", ["drop-oldest", "summarise"])
def test_a_full_context(remote, policy):
    chat = remote()
    run_line(chat, f"/context {policy}")
    told = []
    for turn in range(12):
        told += [each.text for each in chat.say(f"{turn} " + "word " * 20) if isinstance(each, Notice)]
    assert len(chat.messages) == 24 and chat.history.hidden > 0
    assert any("the context is full" in each for each in told)
    assert (chat.history.summary is not None) == (policy == "summarise")
    chat.cut(0)
    assert chat.history.hidden == 0


def test_a_full_context_stops(remote):
    chat = remote()
    with pytest.raises(ContextOverflowError, match="shorten the message"):
        say(chat, "word " * 400)
    assert not chat.messages
    with pytest.raises(ContextOverflowError, match="/context drop-oldest"):
        for _ in range(12):
            say(chat, "word " * 20)


@pytest.mark.parametrize("policy", ["drop-oldest", "summarise"])
def test_a_message_that_never_fits_hides_nothing(remote, policy):
    chat = remote()
    run_line(chat, f"/context {policy}")
    for turn in range(3):
        say(chat, f"{turn} hello")
    told = []
    with pytest.raises(ContextOverflowError, match="shorten the message"):
        for each in chat.say("word " * 400):
            told.append(each)
    assert told and len(chat.messages) == 6
    assert (chat.history.hidden, chat.history.summary) == (0, None)


def test_cancelling_while_room_is_made_hides_nothing(remote):
    chat = remote()
    run_line(chat, "/context drop-oldest")
    for turn in range(4):
        say(chat, f"{turn} hello")
    told: list[Notice] = []
    chat.ui = replace(chat.ui, cancelled=lambda: bool(told))
    with contextlib.suppress(ContextOverflowError):  # the server may be quicker than the question whether it was cancelled
        told += (each for each in chat.say("word " * 400) if isinstance(each, Notice))
    assert told and len(chat.messages) in (8, 9)
    assert chat.history.hidden == 0


def test_a_server_of_others():
    with foreign() as (address, server):
        chat = open_remote(Connection(address), None)
        server.lines = (chunk("Hi"), chunk(finish_reason="stop"), "[DONE]")
        assert say(chat, "Hello") == "Hi" and chat.status().used_tokens == 1 and chat.context == 0
        for line in ("/lazy on", "/template", "/template raw", "/experts", "/model theirs --context 9"):
            with pytest.raises(OptionError, match="is not a Lacewing server"):
                run_line(chat, line)
        assert '"Hello"' in run_line(chat, "/debug").text
        assert run_line(chat, "/model theirs").text == f"theirs at {address}"
        server.lines = ()
        with pytest.raises(ServerError, match="in the middle"):
            say(chat, "More")
        assert len(chat.messages) == 2  # the message was taken back
        chat.close()


@pytest.mark.parametrize("status", ["loaded", None, ["loaded"]])
def test_a_status_of_others_that_is_not_ours(status):
    with foreign() as (address, server), contextlib.closing(open_remote(Connection(address), None, GREEDY)) as chat:
        server.entries = iter([{"status": status}] * 3)
        assert run_line(chat, "/model theirs").text == chat.described()


def test_a_model_that_another_server_loads():
    """As llama-server with several models tells its progress: a share, and no count."""
    told = []
    ui = Ui(progress=lambda *stage: told.append(stage))
    loading = {"value": "loading", "progress": {"stages": ["text"], "current": "text", "value": 0.5}}
    with foreign() as (address, server), contextlib.closing(open_remote(Connection(address), None, GREEDY, ui)) as chat:
        server.others = ("/models/load",)
        server.entries = iter([{"status": each} for each in ({"value": "unloaded"}, loading, {"value": "loaded"})])
        assert run_line(chat, "/model theirs").text == chat.described()
    assert told == [("text", 50, 100)]
