"""Session files: whole or not there, on the same model or another, damaged ones refused."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from lacewing.chat.commands.table import run_line
from lacewing.chat.services import atomic, autosave, document, files, kv_files
from lacewing.chat.services.document import SessionFileError
from lacewing.chat.services.templates import change_template
from lacewing.chat.session.settings import Settings
from lacewing.errors import OptionError
from lacewing.options import Sampling
from tests.chat.conftest import GREEDY, say


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LACEWING_SESSIONS", str(tmp_path / "sessions"))
    return tmp_path / "sessions"


@pytest.fixture
def spoken(start):
    session = start()
    say(session, "Hello")
    say(session, "More \ud800 \N{SLICE OF PIZZA}")
    return session


def test_back_and_forth(spoken, start, folder):
    spoken.settings = Settings(Sampling(temperature=0, max_tokens=6, seed=7, stop=("x",), logit_bias={3: -1.5}), system="Brief.")
    change_template(spoken, "raw")
    assert "saved 4 messages" in files.save(spoken, "one")[0]
    assert files.names() == ["one"] and [row[0] for row in files.listing()] == ["one"]
    other = start()
    assert "loaded 4 messages" in files.load(other, "one")[0]
    assert (other.messages, other.settings, other.formatter.choice) == (spoken.messages, spoken.settings, "raw")
    assert say(other, "Go on") == say(spoken, "Go on")


def test_keys_and_values_come_back(spoken, start, folder):
    assert "with the KV cache of" in files.save(spoken, "one", kv_cache=True)[1]
    other = start(context=600)
    assert "nothing has to be reprocessed" in files.load(other, "one")[1]
    assert other.model.engine.cached == spoken.model.engine.cached
    assert say(other, "Go on") == say(spoken, "Go on")
    assert other.stats["reused_tokens"] > 40
    kept = list(folder.glob("*.kv"))
    files.save(other, "one", kv_cache=True)
    assert len(list(folder.glob("*.kv"))) == 1 and list(folder.glob("*.kv")) != kept
    files.save(other, "one")
    assert not list(folder.glob("*.kv"))


def test_damaged_keys_and_values_are_reprocessed(spoken, start, folder):
    files.save(spoken, "one", kv_cache=True)
    (kv,) = folder.glob("*.kv")
    whole = kv.read_bytes()
    for damage in (whole[:-1], b"", whole[:100] + b"\xff\xfe" + whole[102:]):
        kv.write_bytes(damage)
        other = start()
        assert "damaged" in files.load(other, "one")[1] and other.model.engine.cached == []
    kv.unlink()
    assert "cannot be opened" in files.load(start(), "one")[1]
    assert "does not fit this context" in files.load(start(context=20), "one")[1]


@pytest.mark.parametrize("name", ["", ".", "\0", "\ud800", "../one.kv", "/dev/zero", "x" * 300, "pipe.kv"])
def test_hostile_names_of_keys_and_values_cost_no_more_than_them(name, spoken, start, folder):
    files.save(spoken, "one", kv_cache=True)
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.kv")
    parts = json.loads((folder / "one.json").read_text())
    parts["keys_values"]["file"] = name
    (folder / "one.json").write_bytes(document.encode({key: parts[key] for key in parts if key not in (document.MARK, "checksum")}))
    other = start()
    assert "will be reprocessed" in files.load(other, "one")[1]
    assert other.messages == spoken.messages and other.model.engine.cached == []


def test_a_new_conversation_does_not_replace_the_saved_one(spoken, folder):
    run_line(spoken, "/save one")
    before = (folder / "one.json").read_bytes()
    run_line(spoken, "/clear")
    say(spoken, "Hello again")
    with pytest.raises(OptionError, match="give the session a name"):
        run_line(spoken, "/save")
    assert (folder / "one.json").read_bytes() == before


def test_nothing_said_is_nothing_to_rescue(spoken, folder):
    files.save(spoken, "one")
    assert autosave.rescue(spoken) is None
    run_line(spoken, "/clear")
    assert autosave.rescue(spoken) is None and files.names() == ["one"]


def test_on_another_model(spoken, start):
    files.save(spoken, "one", kv_cache=True)
    other = start("gemma")
    lines = files.load(other, "one")
    assert "the conversation will be reprocessed" in lines[1] and other.messages == spoken.messages
    assert isinstance(say(other, "Go on"), str)


def test_a_template_that_is_gone(spoken, start, tmp_path):
    mine = tmp_path / "mine.jinja"
    mine.write_text(spoken.formatter.template.source)
    change_template(spoken, str(mine))
    files.save(spoken, "one")
    mine.unlink()
    lines = files.load(start(), "one")
    assert any("cannot be used" in line for line in lines)


def test_a_template_whose_tokens_the_model_lacks(spoken, start):
    change_template(spoken, "deepseek", force=True)
    files.save(spoken, "one")
    session = start()
    lines = files.load(session, "one")
    assert session.formatter.choice == "deepseek" and any("reads as plain text" in line for line in lines)


def test_every_flipped_byte_is_noticed(spoken, folder):
    spoken.cut(2)
    files.save(spoken, "one")
    path = folder / "one.json"
    whole = path.read_bytes()
    before = list(spoken.messages), spoken.settings, spoken.formatter
    for at in range(len(whole)):
        with pytest.raises(SessionFileError):
            document.decode(path, whole[:at] + bytes([whole[at] ^ (1 + at % 255)]) + whole[at + 1 :])
    for at in range(0, len(whole), 7):
        with pytest.raises(SessionFileError):
            document.decode(path, whole[:at])
    path.write_bytes(whole[:-20])
    with pytest.raises(SessionFileError, match=r"one\.json is damaged"):
        files.load(spoken, "one")
    assert (spoken.messages, spoken.settings, spoken.formatter) == before


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda parts: [], "not a session of Lacewing"),
        (lambda parts: {"messages": []}, "not a session of Lacewing"),
        (lambda parts: parts | {"lacewing_session": 3}, "has version 3"),
        (lambda parts: parts | {"lacewing_session": True}, "has version True"),
        (lambda parts: parts | {"more": 1}, "missing or unknown"),
        (lambda parts: parts | {"messages": [{"role": "system", "content": "x"}]}, "messages have another shape"),
        (lambda parts: parts | {"messages": [{"role": "user", "content": 1}]}, "messages have another shape"),
        (lambda parts: parts | {"view": {"hidden": "1", "summary": None}}, "view has another shape"),
        (lambda parts: parts | {"view": {"hidden": True, "summary": None}}, "view has another shape"),
        (lambda parts: parts | {"settings": parts["settings"] | {"overflow": "x"}}, "settings are not"),
        (lambda parts: parts | {"settings": {}}, "settings are not"),
        (lambda parts: parts | {"settings": parts["settings"] | {"system": 3}}, "settings are not"),
    ],
)
def test_foreign_files_are_refused(change, problem, spoken, folder):
    files.save(spoken, "one")
    path = folder / "one.json"
    parts = json.loads(path.read_text())
    changed = change(parts)
    if isinstance(changed, dict):
        rest = {key: value for key, value in changed.items() if key not in (document.MARK, "checksum")}
        data = (
            document.encode(rest)
            if changed.get(document.MARK) == document.VERSION and set(changed) == set(parts)
            else json.dumps(changed).encode()
        )
    else:
        data = json.dumps(changed).encode()
    path.write_bytes(data)
    with pytest.raises(SessionFileError, match=problem):
        files.load(spoken, "one")
    assert len(spoken.messages) == 4


def test_names_and_missing_files(spoken, tmp_path):
    with pytest.raises(SessionFileError, match="cannot be opened"):
        files.load(spoken, "none")
    for name in ("..", "", ".hidden", "a\nb"):
        with pytest.raises(OptionError, match="cannot name a session"):
            files.path_of(name)
    assert files.path_of(str(tmp_path / "x.json")) == tmp_path / "x.json"
    (tmp_path / "notes.json").write_bytes(b"\xff\x00 not json")
    with pytest.raises(SessionFileError, match="it is not valid JSON"):
        files.load(spoken, str(tmp_path / "notes.json"))


@pytest.mark.parametrize("call", ["fsync", "replace", "fdopen"])
def test_a_disk_that_fails(call, spoken, folder, monkeypatch):
    files.save(spoken, "one")
    before = (folder / "one.json").read_bytes()
    say(spoken, "Later")

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, call, full)
    with pytest.raises(SessionFileError, match="No space left"):
        files.save(spoken, "one", kv_cache=True)
    monkeypatch.undo()
    assert (folder / "one.json").read_bytes() == before
    assert not [path for path in folder.iterdir() if path.suffix != ".json"]


def test_what_dead_writers_left_is_removed(tmp_path):
    path = tmp_path / "one.json"
    old, new, foreign = (tmp_path / name for name in (".one.0123.kv.abc.tmp", ".one.json.def.tmp", ".two.json.abc.tmp"))
    for left in (old, new, foreign):
        left.write_bytes(b"half")
    os.utime(old, (1, 1))
    os.utime(foreign, (1, 1))
    atomic.write(path, b"whole")
    assert path.read_bytes() == b"whole" and not old.exists() and new.exists() and foreign.exists()


@pytest.mark.parametrize("name", ["one", "n" * 58, "n" * 70, "é" * 70])
def test_what_dead_writers_left_of_any_name_is_removed(name, tmp_path):
    path = tmp_path / f"{name}.json"
    for clean in (atomic.remove_stale, lambda path: kv_files.remove_left_over(path.parent)):
        left = atomic.stage(path, b"half")
        os.utime(left, (1, 1))
        clean(path)
        assert not list(tmp_path.iterdir())


WRITER = """
import sys
from pathlib import Path
from lacewing.chat.services import autosave, atomic, document
path, parts = Path(sys.argv[1]), {}
for name, value in eval(sys.argv[2]).items():
    parts[name] = value
print("ready", flush=True)
count = 0
while True:
    count += 1
    parts["messages"] = [{"role": "user", "content": str(count) * 50_000}]
    atomic.write(path, document.encode(parts))
"""


def kill_writers(kills, spoken, folder):
    """SIGKILL at any time: the file is one that was written, whole."""
    files.save(spoken, "one")
    path = folder / "one.json"
    parts = document.decode(path, path.read_bytes())
    rest = {key: value for key, value in parts.items() if key not in (document.MARK, "checksum")}
    chance = random.Random(1)
    for _ in range(kills):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path), repr(rest)], stdout=subprocess.PIPE)
        with writer:
            writer.stdout.readline()
            time.sleep(chance.random() * 0.03)
            writer.send_signal(signal.SIGKILL)
        found = document.decode(path, path.read_bytes())
        (message,) = found["messages"][:1]
        assert message["content"] == "Hello" or len(message["content"]) % 50_000 == 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_while_saving(spoken, folder):
    kill_writers(12, spoken, folder)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_a_thousand_times(spoken, folder):
    kill_writers(1000, spoken, folder)


FULL_WRITER = """
import sys
from lacewing.chat.services import autosave, autosave, files
from lacewing.chat.services.opening import open_session
from lacewing.options import LoadOptions, Sampling
session = open_session(sys.argv[1], LoadOptions("cpu", context=512, threads=1), Sampling(temperature=0, max_tokens=6))
files.load(session, "one")
print("ready", flush=True)
while True:
    list(session.retry() if len(session.messages) > 6 else session.say("More"))
    files.save(session, "one", kv_cache=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_while_saving_keys_and_values(spoken, start, paths):
    files.save(spoken, "one", kv_cache=True)
    chance = random.Random(2)
    for _ in range(4):
        writer = subprocess.Popen([sys.executable, "-c", FULL_WRITER, str(paths["llama"])], stdout=subprocess.PIPE)
        with writer:
            writer.stdout.readline()
            time.sleep(chance.random() * 0.05)
            writer.send_signal(signal.SIGKILL)
        other = start()
        assert "nothing has to be reprocessed" in files.load(other, "one")[1]
        assert len(other.messages) % 2 == 0 and other.messages[0] == spoken.messages[0]


def test_sampling_survives_json(spoken, folder):
    path = folder / "x"
    for settings in (Settings(GREEDY), Settings(thinking=False, overflow="summarise", code=True)):
        assert document.settings_from(path, json.loads(json.dumps(document.settings_to(settings)))) == settings
