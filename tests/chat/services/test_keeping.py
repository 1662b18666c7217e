"""No conversation is lost by accident: not by another one, another chat, a clock, a full disk, or the end of the program."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lacewing.chat.commands.table import load_commands, run_line
from lacewing.chat.services import atomic, autosave, document, files, kv_files
from lacewing.chat.services.document import SessionFileError
from lacewing.chat.services.swap import change_model
from lacewing.chat.terminal.completion import candidates
from lacewing.errors import Cancelled, LacewingError, OptionError
from tests.chat.commands.test_commands import cells
from tests.chat.conftest import say

HOUR = 3600


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LACEWING_SESSIONS", str(tmp_path / "sessions"))
    return tmp_path / "sessions"


@pytest.fixture
def chat(start):
    session = start()
    say(session, "Hello")
    return session


def talk(session, text):
    """A conversation without a model's work."""
    session.messages = [*session.messages, {"role": "user", "content": text}, {"role": "assistant", "content": f"{text}!"}]


def person(session, *answers):
    """Somebody who answers questions; the questions."""
    asked, left = [], list(answers)

    def confirm(question):
        asked.append(question)
        return left.pop(0)

    session.ui.interactive, session.ui.confirm = True, confirm
    return asked


def said(name):
    return [each["content"] for each in document.read(files.path_of(name))["messages"] if each["role"] == "user"]


# ---- other conversations ----


@pytest.mark.parametrize("command", ["/save", "/fullsave"])
def test_another_conversation_is_not_replaced_unasked(command, chat, start):
    run_line(chat, f"{command} one")
    run_line(chat, f"{command} one")  # its own
    other = start()
    talk(other, "Else")
    with pytest.raises(OptionError, match=r"another conversation of 2 messages, saved 20.*; /save one --force replaces it"):
        run_line(other, f"{command} one")  # nobody is there
    asked = person(other, False, True)
    with pytest.raises(Cancelled):
        run_line(other, f"{command} one")
    assert said("one") == ["Hello"] and "Replace it?" in asked[0]
    run_line(other, f"{command} one")
    assert said("one") == ["Else"]
    run_line(other, "/save")  # without a name it is its own now
    with pytest.raises(OptionError, match="has changed since this chat loaded or saved it"):
        run_line(chat, f"{command} one")
    run_line(chat, f"{command} one --force")
    assert said("one") == ["Hello"]


def test_a_file_of_somebody_else_is_not_replaced_unasked(chat, tmp_path):
    (tmp_path / "package.json").write_text("{}")
    with pytest.raises(OptionError, match="no session that can be read"):
        run_line(chat, f"/save {tmp_path / 'package.json'}")
    assert (tmp_path / "package.json").read_text() == "{}"


def test_a_load_and_a_clear_offer_to_save_first(chat, start, folder):
    other = start()
    talk(other, "Else")
    run_line(other, "/save else")
    asked = person(chat, True, False, False)
    assert "/undo goes back to the previous conversation, 2 messages" in run_line(chat, "/load else").text
    (kept,) = set(files.names()) - {"else"}
    assert kept.startswith("saved-") and said(kept) == ["Hello"]
    run_line(chat, "/clear")  # it is saved: nothing is asked
    assert len(asked) == 1
    talk(chat, "New")
    run_line(chat, "/clear")
    talk(chat, "Newer")
    run_line(chat, "/load else")
    assert len(asked) == 3 and len(files.names()) == 2


def test_a_session_that_cannot_be_loaded_asks_nothing(chat, folder):
    asked = person(chat)
    with pytest.raises(SessionFileError):
        run_line(chat, "/load none")
    assert asked == [] and len(chat.messages) == 2


def test_undo_goes_back(chat, start):
    other = start()
    for text in ("One", "Two"):
        talk(other, text)
    other.change(system="Brief.")
    run_line(other, "/template raw")
    run_line(other, "/save other")
    run_line(chat, "/save mine")
    before = list(chat.messages), chat.settings, chat.formatter.choice, chat.saved
    run_line(chat, "/load other")
    assert (chat.settings.system, chat.formatter.choice) == ("Brief.", "raw")
    say(chat, "Three")
    assert run_line(chat, "/undo").text == "removed: Three"
    assert run_line(chat, "/undo").text == "back to the previous conversation, 2 messages"
    assert (list(chat.messages), chat.settings, chat.formatter.choice, chat.saved) == before
    run_line(chat, "/save")
    assert "/undo brings the old one back" in run_line(chat, "/clear").text
    run_line(chat, "/temperature 0.5")
    run_line(chat, "/undo")
    assert list(chat.messages) == before[0] and chat.settings.sampling.temperature == 0.5
    assert run_line(chat, "/undo").text == "removed: Hello"
    with pytest.raises(OptionError):
        run_line(chat, "/undo")


def test_undo_after_a_load_into_nothing_takes_an_exchange_back(chat, start):
    run_line(chat, "/save one")
    other = start()
    run_line(other, "/load one")
    assert run_line(other, "/undo").text == "removed: Hello"


def test_what_is_hidden_comes_back_with_the_conversation(chat, paths):
    from lacewing.chat.session.formatter import VisibleHistory

    chat.formatter.history = VisibleHistory(1, "so far")
    run_line(chat, "/clear")
    assert chat.formatter.history == VisibleHistory()
    run_line(chat, "/undo")
    assert chat.formatter.history == VisibleHistory(1, "so far")
    run_line(chat, "/clear")
    run_line(chat, f"/model {paths['gemma']}")  # the history belongs to another model now
    run_line(chat, "/undo")
    assert chat.formatter.history == VisibleHistory() and chat.parked[0].formatter.history == VisibleHistory(1, "so far")


def test_show_and_the_last_exchange(chat, start):
    talk(chat, "Second")
    run_line(chat, "/save one")
    other = start()
    text = run_line(other, "/load one").text
    assert text.endswith("You: Second\n\nModel: Second!") and "Hello" not in text
    shown = run_line(other, "/show")
    assert shown.kind == "markdown" and shown.text.startswith("## You\n\nHello\n\n## Model\n\n")
    assert run_line(other, "/show 1").text == "## Model\n\nSecond!"
    with pytest.raises(OptionError, match="at least 1"):
        run_line(other, "/show 0")
    run_line(other, "/clear")
    with pytest.raises(OptionError, match="empty"):
        run_line(other, "/show")


# ---- the end of a chat ----


def test_who_leaves_keeps_the_conversation(chat, start):
    person(chat)
    assert autosave.leave(chat) == "the conversation is kept: lacewing chat --resume continues it"
    assert autosave.leave(chat) is None
    model, path = autosave.resume()
    name = Path(path).stem
    assert name.startswith("last-") and model == str(chat.model.path)
    other = start()
    person(other)
    files.load(other, name)
    talk(other, "More")
    autosave.leave(other)
    assert files.names() == [name] and said(name) == ["Hello", "More"]  # it has only grown
    other.messages = other.messages[2:]
    autosave.leave(other)
    assert len(files.names()) == 2 and said(name) == ["Hello", "More"]
    with pytest.raises(OptionError, match="give the session a name"):
        run_line(other, "/save")  # not that of a file that is kept for a while
    with pytest.raises(OptionError, match="kept for a limited time"):
        run_line(other, f"/save {name}")


def test_a_model_that_is_gone_is_named(paths, start, folder):
    with pytest.raises(SessionFileError, match="no conversation is kept"):
        autosave.resume()
    copy = folder.with_name("mine.gguf")
    copy.write_bytes(paths["llama"].read_bytes())
    chat = start()
    talk(chat, "Hello")
    change_model(chat, str(copy))
    autosave.leave(chat)
    copy.unlink()
    with pytest.raises(SessionFileError, match=r"is no longer at .*mine.gguf; lacewing chat MODEL --resume continues it"):
        autosave.resume()
    assert autosave.resume("smollm2")[0] == "smollm2"


def test_scripts_do_not_push_out_what_people_said(start):
    session = start()
    talk(session, "mine")
    person(session)
    autosave.leave(session)
    session.ui.interactive = False
    for count in range(12):
        session.replace([])
        talk(session, f"script {count}")
        autosave.leave(session)
    kinds = [name.split("-")[0] for name in files.names()]
    assert kinds.count("last") == 1 and kinds.count("pipe") == 10
    assert said(Path(autosave.resume()[1]).stem) == ["script 11"]


def later(folder, hours=24 * 365, kind="autosave"):
    """Ten conversations by a clock that was ahead: later names, later times."""
    for count in range(10):
        when = time.time() + HOUR * (hours + count)
        path = folder / f"{kind}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(when))}-1.json"
        path.write_bytes((folder / "model.json").read_bytes())
        os.utime(path, (when, when))


def test_a_clock_that_was_ahead_costs_nothing_new(start, folder):
    session = start()
    talk(session, "old")
    files.save(session, "model")
    later(folder)
    for count in range(4):
        session.replace([])
        talk(session, f"new {count}")
        name = autosave.rescue(session).rpartition(" ")[2]
        assert said(name) == [f"new {count}"]
    kept = [name for name in files.newest() if name.startswith("autosave-")]
    assert [said(name)[0] for name in kept] == [f"new {count}" for count in (3, 2, 1, 0)] + ["old"] * 6


def test_a_conversation_that_was_recovered_late_stays(start, folder):
    """The chat that it is of died long ago, and ten others were ended since."""
    session = start()
    talk(session, "old")
    files.save(session, "model")
    later(folder)
    talk(session, "dead")
    files.save(session, "dead")
    for process in (os.getpid(), 999_999_999):  # an earlier process may have had our number
        os.rename(folder / "dead.json", folder / f"autosave-open-{process}.json")
        os.utime(folder / f"autosave-open-{process}.json", (HOUR, HOUR))
        (found,) = autosave.recover()
        assert said(found) == ["old", "dead"]
        os.rename(files.path_of(found), folder / "dead.json")


@pytest.mark.parametrize("name", ["autosave-open-99999999999", f"autosave-open-{'9' * 20}"])
def test_odd_numbers_and_dates_of_what_was_left(name, chat, folder):
    files.save(chat, "one")
    (folder / "one.json").rename(folder / f"{name}.json")
    os.utime(folder / f"{name}.json", (2**40, 2**40))
    (found,) = autosave.recover()
    assert said(found) == ["Hello"]
    chat.replace([])
    talk(chat, "after")
    files.save(chat, "after")
    assert files.newest()[0] == "after" == Path(autosave.resume()[1]).stem
    (folder / "after.json").rename(folder / "what: a name?.json")  # and its time is the last one that there is
    assert said(autosave.resume()[1]) == ["after"] and len(list(files.listing())) == 2


def test_a_conversation_whose_file_is_gone_is_not_said_to_be_saved(chat, start, folder):
    run_line(chat, "/save one")
    assert autosave.rescue(chat) is None
    other = start()
    talk(other, "Else")
    run_line(other, "/save one --force")
    assert said(autosave.rescue(chat).rpartition(" ")[2]) == ["Hello"]
    files.path_of("one").unlink()
    assert said(autosave.rescue(other).rpartition(" ")[2]) == ["Else"]


def pipe(folder, *words):
    words = [sys.executable, "-m", "lacewing", "chat", *map(str, words), "--backend", "reference", "--max-tokens", "4"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, **pipes, env={**os.environ, "LACEWING_SESSIONS": str(folder)})


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGTERM")
def test_a_pipe_that_is_ended_when_the_clock_was_ahead(tiny_path, start, folder):
    session = start()
    talk(session, "old")
    files.save(session, "model")
    later(folder)
    with pipe(folder, tiny_path) as process:
        process.stdin.write("Remember the milk\n")
        process.stdin.flush()
        process.stdout.readline()
        process.terminate()
        _, problems = process.communicate(timeout=60)
    assert process.returncode == 128 + 15
    name = problems.strip().rpartition("/load ")[2]
    assert said(name) == ["Remember the milk"]


def test_a_chat_is_resumed(tiny_path, folder, tmp_path):
    """In a pipe as on a screen; with its model, or with another one that is named."""

    def talked(lines, *words):
        with pipe(folder, *words) as process:
            _, problems = process.communicate(lines, timeout=60)
        return process.returncode, problems

    code, problems = talked("", "--resume")
    assert code == 1 and "no conversation is kept" in problems and "Traceback" not in problems
    assert talked("Remember the milk\n", tiny_path) == (0, "")
    code, problems = talked("/show 2\nAnd bread\n", "--resume")
    assert code == 0 and "## You\n\nRemember the milk" in problems
    assert [said(name) for name in files.names()] == [["Remember the milk", "And bread"]]
    tiny_path.rename(tmp_path / "elsewhere.gguf")
    try:
        code, problems = talked("", "--resume")
        assert code == 1 and "is no longer at" in problems
        code, problems = talked("/show 4\n", tmp_path / "elsewhere.gguf", "--resume")
        assert code == 0 and "And bread" in problems
    finally:
        (tmp_path / "elsewhere.gguf").rename(tiny_path)


# ---- two chats ----

TWO = """
import sys
from pathlib import Path
from lacewing.chat.services import files
from lacewing.chat.services.opening import open_session
from lacewing.options import LoadOptions, Sampling
session = open_session(sys.argv[1], LoadOptions("cpu", context=256, threads=1), Sampling(temperature=0, max_tokens=2))
list(session.say(sys.argv[2]))
print("ready", flush=True)
for line in sys.stdin:
    try:
        print(files.save(session, "one", kv_cache=True, force=line == "force\\n")[0], flush=True)
    except Exception as error:
        print(type(error).__name__, error, flush=True)
"""


def test_two_processes_save_one_name(paths, folder, start):
    words = [sys.executable, "-c", TWO, str(paths["llama"])]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}

    def ask(process, line):
        process.stdin.write(line + "\n")
        process.stdin.flush()
        return process.stdout.readline()

    with subprocess.Popen([*words, "first"], **pipes) as first, subprocess.Popen([*words, "second"], **pipes) as second:
        assert [first.stdout.readline(), second.stdout.readline()] == ["ready\n", "ready\n"]
        assert "saved 2 messages" in ask(first, "save")
        assert "another conversation" in ask(second, "save")
        assert "saved 2 messages" in ask(second, "force")
        assert "has changed since" in ask(first, "save") and said("one") == ["second"]
        for _ in range(4):  # both at once: each says what it did, and the file is whole
            for process in (first, second):
                process.stdin.write("force\n")
                process.stdin.flush()
            replies = [process.stdout.readline() for process in (first, second)]
            assert all("saved 2 messages" in reply or "at the same time" in reply for reply in replies)
            assert any("saved 2 messages" in reply for reply in replies)
            assert "nothing has to be reprocessed" in "\n".join(files.load(start(context=256), "one"))
        first.stdin.close()
        second.stdin.close()


def test_the_kv_cache_of_a_save_that_goes_on_is_spared(chat, folder):
    """Another chat has written its KV cache and not yet its JSON."""
    files.save(chat, "one", kv_cache=True)
    young, old, ahead = (folder / f"one.{digit * 16}.kv" for digit in "123")
    for file in (young, old, ahead):
        file.write_bytes(b"half")
    os.utime(old, (1, 1))
    os.utime(ahead, (time.time() + HOUR,) * 2)
    say(chat, "More")
    files.save(chat, "one", kv_cache=True)
    kept = document.read(folder / "one.json")["keys_values"]["file"]
    assert {file.name for file in folder.glob("*.kv")} == {kept, young.name}


# ---- sessions as a list ----


def test_sessions_are_renamed_and_deleted(chat, start, folder):
    run_line(chat, "/fullsave one")
    talk(chat, "More")
    run_line(chat, "/save two")
    with pytest.raises(OptionError, match="exists"):
        run_line(chat, "/sessions rename one two")
    assert run_line(chat, "/sessions rename one three").text == "one is now three"
    assert "nothing has to be reprocessed" in run_line(start(), "/load three").text
    assert [line.split(" | ")[0] for line in cells(run_line(chat, "/sessions"))] == ["two", "three"]  # the newest first
    run_line(chat, "/sessions rename two four")
    run_line(chat, "/save")
    assert files.names() == ["four", "three"]  # what a chat has open is saved there
    with pytest.raises(OptionError, match="--force deletes"):
        run_line(chat, "/sessions delete three")
    asked = person(chat, False)
    with pytest.raises(Cancelled):
        run_line(chat, "/sessions delete three")
    assert "2 messages" in asked[0] and files.names() == ["four", "three"]
    run_line(chat, "/sessions delete three --force")
    assert [file.name for file in folder.iterdir()] == ["four.json"]
    for line in ("/sessions rename four", "/sessions delete", "/sessions delete three", "/sessions rename none x",
                 "/sessions rename four last-20260101-000000-1"):  # fmt: skip
        with pytest.raises(LacewingError):
            run_line(chat, line)


def write(path, parts):
    """A file with a right checksum, whatever its parts are."""
    blank = "0" * 64
    text = json.dumps({**parts, "checksum": blank}).encode()
    path.write_bytes(text.replace(blank.encode(), document.hashlib.sha256(text).hexdigest().encode(), 1))


VALUES = st.sampled_from(
    [None, True, 5, -1, 1e300, 10**400, "", "x", "\x1b[2J", [], [5], [[5]], ["x"], {}, {"x": 5}, "\0", "\ud800"]
)


def places(value, path=()):
    """Where something stands in a document."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, each in inner:
        yield from places(each, (*path, key))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_every_field_of_every_wrong_type(data, chat, folder):
    """A file that is refused costs nothing; one that is not is used as it says; the list has all files."""
    chat.change(system="Brief.")
    chat.settings = chat.settings.with_sampling(stop=("x",), logit_bias={3: -1.5})
    files.save(chat, "good", kv_cache=True, force=True)
    parts = document.read(folder / "good.json")
    if data.draw(st.booleans()):  # a file of version 1
        parts = {key: value for key, value in parts.items() if key not in ("count", "kv", "nbytes")} | {document.MARK: 1}
    place = data.draw(st.sampled_from([each for each in places(parts) if each and each[0] != "checksum"]))
    target = parts
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = data.draw(VALUES)
    write(folder / "bad.json", parts)
    rows = {row[0]: row for row in files.listing()}
    assert set(rows) == {"good", "bad"} and rows["good"][2] == "2" and all(isinstance(cell, str) for cell in rows["bad"])
    before = list(chat.messages), chat.settings, chat.formatter, chat.saved
    try:
        run_line(chat, "/load bad")
    except LacewingError:
        assert (chat.messages, chat.settings, chat.formatter, chat.saved) == before
    else:
        list(chat.say("Go on"))
        chat.go_back()
    files.load(chat, "good")
    chat.replaced.clear()


def test_saved_5(chat, folder):
    files.save(chat, "good")
    first, _, body = (folder / "good.json").read_bytes().partition(b"\n")
    head = json.loads(first[:-1] + b"}")
    for name, wrong in (
        ("a", {"saved": 5}),
        ("b", {"saved": "5 o'clock"}),
        ("c", {"model": 5}),
        ("d", {"count": "5"}),
        ("e", {"kv": 5}),
    ):
        (folder / f"{name}.json").write_bytes(json.dumps(head | wrong).encode()[:-1] + b",\n" + body)
    (folder / "f.json").write_bytes((folder / "good.json").read_bytes()[:-1])
    rows = {row[0]: row for row in files.listing()}
    assert set(rows) == {"good", *"abcdef"} and rows["good"][2] == "2"
    assert all(rows[name][1] == "unreadable" and rows[name][4].startswith("is damaged") for name in "abcdef")


# ---- memory ----

LIMITED = """
import sys, time
from pathlib import Path
from lacewing.chat.services import document, files
from lacewing.weights.machine import process_bytes
import resource
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print([row[0] for row in files.listing()])
for path in sorted(Path(sys.argv[1]).glob("*.json")):
    try:
        document.read(path)
    except document.SessionFileError as error:
        print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts KiB")
def test_a_hostile_file_takes_memory_in_proportion(chat, folder):
    files.save(chat, "good")
    first = (folder / "good.json").read_bytes().partition(b"\n")[0]
    for name, count in (("large", 200 << 20), ("dense", 30 << 20)):
        with (folder / f"{name}.json").open("wb") as file:
            file.write(first + b'\n"x": [' + b"[]," * (count // 3) + b"[]]}")
    (folder / "deep.json").write_bytes(b"[" * (1 << 20))
    done = subprocess.run([sys.executable, "-c", LIMITED, str(folder)], capture_output=True, text=True, env=os.environ, timeout=300)
    *lines, grown = done.stdout.splitlines()
    assert "'good'" in lines[0] and "'large'" in lines[0] and "200.0 MiB" in done.stdout and "values in its JSON" in done.stdout
    assert int(grown) < 250 << 10, grown  # KiB


def test_a_list_of_sessions_reads_their_first_lines(chat, folder, monkeypatch):
    chat.messages[0]["content"] = "x" * (8 << 20)
    for count in range(5):
        files.save(chat, f"{count}", force=True)
    lengths = []
    read = document.read_bytes
    monkeypatch.setattr(document, "read_bytes", lambda path, limit: lengths.append(len(read(path, limit)[0])) or read(path, limit))
    assert [row[2] for row in files.listing()] == ["2"] * 5 and sum(lengths) <= 5 * document.HEAD_BYTES


def test_a_session_of_version_1_is_listed_and_loaded(chat, start, folder):
    files.save(chat, "new", kv_cache=True)
    parts = document.read(folder / "new.json")
    write(
        folder / "old.json",
        {key: value for key, value in parts.items() if key not in ("count", "kv", "nbytes")} | {document.MARK: 1},
    )
    rows = {row[0]: row for row in files.listing()}
    assert rows["old"][1:] == rows["new"][1:] and "KV cache" in rows["old"][4]
    assert "nothing has to be reprocessed" in run_line(start(), "/load old").text


def test_what_could_not_be_read_again_is_not_written(chat, folder, monkeypatch):
    files.save(chat, "one")
    monkeypatch.setattr(document, "MAX_BYTES", 2000)
    chat.messages[0]["content"] = "x" * 3000
    with pytest.raises(SessionFileError, match="/export writes it"):
        files.save(chat, "one", kv_cache=True)
    assert said("one") == ["Hello"] and not list(folder.glob("*.kv"))


# ---- what failed saves leave ----


@pytest.mark.parametrize("kept", [False, True])
def test_a_full_disk_leaves_no_kv_cache(kept, chat, folder, monkeypatch):
    """The KV cache fits, its JSON does not; a cache of the same content that was there before stays."""
    files.save(chat, "one", kv_cache=kept)
    before = sorted(folder.iterdir())
    real = atomic.os.fsync
    calls = []

    def full(handle):
        calls.append(handle)
        if len(calls) > 2:  # the KV cache and its folder
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(SessionFileError, match="No space left"):
        files.save(chat, "one", kv_cache=True)
    assert sorted(folder.iterdir()) == before and len(calls) == 3


def test_a_chat_that_begins_removes_what_failed_saves_left(chat, folder):
    files.save(chat, "one", kv_cache=True)
    kept = sorted(folder.iterdir())
    (folder / "damaged.json").write_text("{")
    spared = [folder / name for name in ("damaged.0123456789abcdef.kv", "notes.kv", ".mine.tmp", "young.0123456789abcdef.kv",
                                         f".one.json.{os.getppid()}-abcdefgh.tmp")]  # fmt: skip
    left = [folder / name for name in ("gone.0123456789abcdef.kv", "one.0123456789abcdef.kv", ".one.json.abcdefgh.tmp",
                                       ".gone.0123456789abcdef.kv.999999999-abcd_fg1.tmp")]  # fmt: skip
    for count, file in enumerate([*spared, *left]):
        file.write_bytes(b"half")
        if not file.name.startswith("young"):
            os.utime(file, (time.time() + HOUR * (-1) ** count,) * 2)  # also dated ahead
    assert autosave.recover() == []
    assert sorted(folder.iterdir()) == sorted([*kept, folder / "damaged.json", *spared])


def test_a_half_written_file_that_is_dated_ahead_is_removed(tmp_path):
    left = tmp_path / ".one.json.abcdefgh.tmp"
    left.write_bytes(b"half")
    os.utime(left, (time.time() + HOUR,) * 2)
    atomic.write(tmp_path / "one.json", b"whole")
    assert [file.name for file in tmp_path.iterdir()] == ["one.json"]


def test_a_writer_that_was_suspended_keeps_its_file(tmp_path):
    """However long it takes: its number tells that it is still there."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        left = tmp_path / f".one.json.{other.pid}-abcdefgh.tmp"
        left.write_bytes(b"half")
        os.utime(left, (1, 1))
        atomic.write(tmp_path / "one.json", b"whole")
        assert left.exists()
        other.communicate()
    atomic.write(tmp_path / "one.json", b"whole")
    assert not left.exists()


def test_a_folder_that_somebody_has_locked_costs_seconds_only(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "_PATIENCE", 0.1)
    with atomic.locked(tmp_path), atomic.locked(tmp_path):
        pass
    assert kv_files.files_of(tmp_path / "one.json") == []


def test_a_folder_that_may_not_be_entered_or_listed_is_told(chat, folder, monkeypatch):
    def refused(path, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    folder.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "listdir", refused)
        for act in (lambda: run_line(chat, "/sessions"), lambda: autosave.resume(), lambda: autosave.leave(chat), autosave.recover):
            with pytest.raises(SessionFileError, match=f"{folder} cannot be listed: Permission denied"):
                act()
        assert list(candidates("/load ", load_commands(), {"session": files.names})) == []
        files.save(chat, "kept")  # can be written all the same
    with monkeypatch.context() as patch:
        patch.setattr(type(folder), "exists", refused)
        for line in ("/save kept", "/load kept", "/sessions delete kept"):
            with pytest.raises(SessionFileError, match=r"kept\.json cannot be opened: Permission denied"):
                run_line(chat, line)
    assert said("kept") == ["Hello"]
