"""The editor driven by keys, and what it completes; no terminal is needed."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from lacewing.chat.commands.table import Argument, Command, CommandTable, Option, Reply
from lacewing.chat.terminal import editor as editor_module
from lacewing.chat.terminal.completion import candidates
from lacewing.chat.terminal.editor import Editor
from lacewing.errors import OptionError


def run(chat, **arguments):
    """Summary."""
    return Reply()


def table():
    table = CommandTable()
    backend, lazy = Option("backend", "backend"), Option("lazy")
    for one in (
        Command("model", run, (Argument("name", "model"),), (backend, lazy)),
        Command("template", run, (Argument("name", "template", ("auto",)), Argument("other", "template"))),
        Command("lazy", run, (Argument("wanted", "on/off"),)),
        Command("help", run, (Argument("name", "command"),), aliases=("h",)),
        Command("read", run, (Argument("file", "path"),)),
        Command("system", run, (Argument("text", "text", rest=True),)),
    ):
        table.add(one)
    return table


SOURCES = {
    "model": lambda: ["smollm2", "my model"],
    "template": lambda: ["chatml", "llama3"],
    "backend": lambda: ["cpu", "reference"],
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").touch()
    (tmp_path / "now.gguf").touch()
    (tmp_path / ".hidden").touch()
    (tmp_path / "my file.txt").touch()
    (tmp_path / "my folder").mkdir()
    (tmp_path / "my folder/b c.txt").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("before", "offered"),
    [
        ("/", ["h", "help", "lazy", "model", "read", "system", "template"]),
        ("/t", ["template"]),
        ("/x", []),
        ("/x y", []),
        ("/lazy ", ["on", "off"]),
        ("/lazy of", ["off"]),
        ("/lazy off ", []),
        ("/model s", ["smollm2"]),
        ("/model my", ['"my file.txt"', '"my folder/', '"my model"']),
        ("/model --", ["--backend", "--lazy"]),
        ("/model --lazy --", ["--backend"]),
        ("/model --backend ", ["cpu", "reference"]),
        ("/model --backend cpu s", ["smollm2"]),
        ("/model s --backend r", ["reference"]),
        ("/model n", ["notes/", "now.gguf"]),
        ("/read notes/", ["notes/a.txt"]),
        ("/read .", [".hidden"]),
        ("/read m", ['"my file.txt"', '"my folder/']),
        ('/read "my f', ['"my file.txt"', '"my folder/']),
        ("/read 'my fi", ["'my file.txt'"]),
        ('/read "my folder/', ['"my folder/b c.txt"']),
        ("  /read notes/", ["notes/a.txt"]),
        ("\ufeff/t", ["template"]),
        ('/model "my', ['"my file.txt"', '"my folder/', '"my model"']),
        ("see @m", ['"my file.txt"', '"my folder/']),
        ('see @"my folder/', ['"my folder/b c.txt"']),
        ("/read no/such/", []),
        ("/template ", ["auto", "chatml", "llama3", "notes/", "now.gguf", '"my file.txt"', '"my folder/']),
        ("/template chatml l", ["llama3"]),
        ("/help t", ["template"]),
        ("/system on", []),
        ("what is in @n", ["notes/", "now.gguf"]),
        ("me@n", []),
        ("//t", []),
        ("hello ", []),
    ],
)
def test_completion(folder, before, offered):
    found = list(candidates(before, table(), SOURCES))
    assert sorted(one.text for one in found) == sorted(offered)
    for one in found:  # it takes the place of what is written
        whole = before[: len(before) - one.length] + one.text
        assert whole.startswith(before.rstrip("'\"")) or '"' in one.text


class Console:
    """An editor with keys typed into it."""

    def __init__(self, history=None, edit=lambda text: None):
        self.said, self.unfolded = [], []
        self.history, self.edit = history, edit

    def type(self, *keys, reads=1):
        with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
            one = Editor(
                table(), SOURCES, lambda: "status\x1b", lambda: self.unfolded.append(1), self.said.append, self.edit, self.history
            )
            pipe.send_text("".join(keys))
            return [one.read() for _ in range(reads)]


ALT_ENTER, CTRL_C, CTRL_D, UP = "\x1b\r", "\x03", "\x04", "\x1b[A"


def test_enter_sends_and_alt_enter_does_not():
    assert Console().type("one", ALT_ENTER, "two\r", "\r", "  \r", "three\r", reads=2) == ["one\ntwo", "  three"]


def test_a_paste_is_not_sent():
    assert Console().type("\x1b[200~a\n/quit\nb\x1b[201~", " c\r") == ["a\n/quit\nb c"]


def test_ctrl_c_drops_the_line_and_twice_leaves():
    console = Console()
    assert console.type("abc", CTRL_C, "d\r") == ["d"] and console.said == []
    assert console.type(CTRL_C, "d\r") == ["d"] and len(console.said) == 1
    assert console.type(CTRL_C, CTRL_C) == [None]
    assert console.type(CTRL_C, "d", CTRL_C, CTRL_C, CTRL_C) == [None]
    assert console.type(CTRL_D) == [None]


@pytest.mark.skipif(os.name == "nt", reason="there, Ctrl-Z stops nothing")
def test_ctrl_z_stops_the_process_and_is_no_part_of_a_message(monkeypatch):
    stopped = []
    monkeypatch.setattr("prompt_toolkit.application.Application.suspend_to_background", lambda self, *_: stopped.append(self))
    assert Console().type("one ", "\x1a", "two\r") == ["one two"] and len(stopped) == 1


def test_the_history_is_kept_for_this_person_alone(tmp_path):
    path = tmp_path / "state" / "history"
    Console(path).type("first\nsecond\r".replace("\n", ALT_ENTER))
    assert Console(path).type(UP, UP, "\r") == ["first\nsecond"]
    assert Console(path).type("\x12fir\r\r") == ["first\nsecond"]  # Ctrl-R
    if os.name == "posix":
        assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700


def test_a_long_history_is_shortened(tmp_path, monkeypatch):
    path = tmp_path / "history"
    path.write_text("".join(f"\n# then\n+line {n}\n" for n in range(100)))
    monkeypatch.setattr(editor_module, "HISTORY_BYTES", 400)
    assert Console(path).type(UP, "\r") == ["line 99"]
    assert path.stat().st_size < 400 and path.read_text().startswith("\n# then\n")


def test_no_place_for_a_history(tmp_path):
    (tmp_path / "file").touch()
    assert Console(tmp_path / "file" / "history").type("a\r") == ["a"]


@pytest.mark.parametrize(
    ("keys", "answer"), [("y\r", True), ("YES\r", True), ("\r", False), ("n\r", False), (CTRL_C, False), (CTRL_D, False)]
)
def test_questions(keys, answer):
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        one = Editor(table(), SOURCES, str, lambda: None, print)
        pipe.send_text(keys)
        assert one.confirm("Write?") is answer


ENDED = """
import signal
from prompt_toolkit.application import create_app_session
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from lacewing.chat.commands.table import CommandTable
from lacewing.chat.terminal import editor
from lacewing.console.interrupt import ended_by_signals
class Slow(InMemoryHistory):
    async def load(self):
        signal.raise_signal(signal.{name})
        yield "never shown"
editor._history = lambda path: Slow()
with ended_by_signals(), create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
    one = editor.Editor(CommandTable(), {{}}, str, lambda: None, print)
    print(one.read())
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_in_the_middle_of_the_event_loop_ends_the_program(name):
    """Raised there, it was lost in a task, and the program waited for Enter or for ever."""
    command = [sys.executable, "-c", ENDED.format(name=name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (128 + getattr(signal, name), "", "")


def test_what_is_completed_is_safe_to_show():
    odd = editor_module._Completer(table(), {"model": lambda: ["a\x1b[2J"]})
    (one,) = odd.get_completions(Document("/model a"), CompleteEvent())
    assert "\x1b" not in one.display_text


TAB = "\t"


def driven(*keys, edit=lambda text: None, said=None):
    """What stands in the line after each of the keys, with time for what happens meanwhile, and what is sent."""
    shown, said = [], [] if said is None else said

    async def type_on(pipe, buffer):
        for each in keys:
            pipe.send_text(each)
            for _ in range(50):
                await asyncio.sleep(0.002)
            shown.append(buffer.text)
        pipe.send_text(CTRL_C + CTRL_D)

    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        one = Editor(table(), SOURCES, str, lambda: None, said.append, edit)
        app, buffer = one._prompt.app, one._prompt.default_buffer
        app.pre_run_callables.append(lambda: app.create_background_task(type_on(pipe, buffer)))
        return shown, one.read()


def tabbed(before, *tabs):
    return driven(before, *tabs)[0][1:]


def test_tab_again_cycles_or_descends_and_never_undoes(folder):
    assert tabbed("/read not", TAB, TAB, TAB) == ["/read notes/", "/read notes/a.txt", "/read notes/a.txt"]
    assert tabbed("/lazy ", TAB, TAB, TAB, TAB) == ["/lazy on", "/lazy off", "/lazy on", "/lazy off"]
    assert tabbed("/lazy ", TAB, "\x1b[Z", "\x1b[Z") == ["/lazy on", "/lazy off", "/lazy on"]
    assert tabbed("/te", TAB, TAB, TAB) == ["/template"] * 3
    assert tabbed("/read my", TAB, TAB, TAB) == ['/read "my file.txt"', '/read "my folder/', '/read "my file.txt"']
    assert tabbed('/read "my fo', TAB, TAB) == ['/read "my folder/', '/read "my folder/b c.txt"']


@pytest.mark.parametrize(("result", "sent"), [(None, "one two"), ("changed\n", "changed"), (" \n", "one two")])
def test_the_editor_sends_what_was_changed_there_only(result, sent):
    """Ctrl-X Ctrl-E; None stands for an editor that was left without a change."""
    asked = []
    assert driven("one", "\x18\x05", " two\r", edit=lambda text: asked.append(text) or result)[1] == sent and asked == ["one"]


def test_an_editor_that_fails_sends_nothing():
    def fail(text):
        raise OptionError("the editor ended with code 1")

    said = []
    assert driven("one", "\x18\x05", " two\r", edit=fail, said=said)[1] == "one two" and said == ["the editor ended with code 1"]
