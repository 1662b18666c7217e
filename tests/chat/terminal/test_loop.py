"""The loop and the plain view, with a session that only records."""

import io
import signal
from typing import ClassVar

import pytest

from lacewing.chat.commands.table import Reply
from lacewing.chat.session.events import Delta, Finished, Notice, Ui
from lacewing.chat.session.settings import Settings
from lacewing.chat.terminal import loop as loop_module
from lacewing.chat.terminal.loop import Loop
from lacewing.chat.terminal.plain import PlainView
from lacewing.console.output import Columns, Table
from lacewing.errors import Cancelled, OptionError


@pytest.fixture(autouse=True)
def nothing_is_kept(monkeypatch):
    monkeypatch.setattr(loop_module.autosave, "leave", lambda session: None)


class Recorder:
    """A session that answers with what it was told."""

    def __init__(self, view):
        self.said, self.notices, self.settings, self.ui = [], ["first notice"], Settings(), view.ui()

    def say(self, text):
        self.said.append(text)
        if text == "fail":
            raise OptionError("no\x1b[2J way")
        if text == "fault":
            raise TypeError("oh")
        if text == "wait":
            signal.raise_signal(signal.SIGINT)
            assert self.ui.cancelled()
            raise Cancelled("x")
        yield Notice("a notice")
        yield Delta("thought ", "reasoning")
        yield Delta(f"answer to {text}\x1b[1m")
        yield Finished("cancelled" if text == "stop" else "length")

    extras: ClassVar = {}
    messages: ClassVar = [
        {"role": "assistant", "content": "a.py\n<<<<<<< SEARCH\none\n=======\ntwo\n>>>>>>> REPLACE\n<<<<<<< SEARCH\n"}
    ]


def talk(text, **changes):
    out, problems = io.StringIO(), io.StringIO()
    view = PlainView(io.StringIO(text), out, problems)
    session = Recorder(view)
    session.settings = Settings(**changes)
    return Loop(session, view).run(), session, out.getvalue(), problems.getvalue()


def test_messages():
    code, session, out, problems = talk("Hello\n\n  //x  \n/quit\nnever\n", show_reasoning=False)
    assert code == 0 and session.said == ["Hello", "/x"]
    assert out == "answer to Hello\x1b[1m\nanswer to /x\x1b[1m\n"
    assert problems == "lacewing: first notice\n" + 2 * "lacewing: a notice\n"


def test_thoughts_in_a_pipe():
    assert talk("a\n", show_reasoning=True)[2] == "thought \nanswer to a\x1b[1m\n"


def test_failures_end_a_line_only():
    code, session, out, problems = talk("fail\nfault\nfine\n", show_reasoning=False)
    assert code == 1 and session.said == ["fail", "fault", "fine"] and "answer to fine" in out
    assert "no\N{REPLACEMENT CHARACTER}[2J way" in problems and "TypeError: oh at test_loop.py" in problems


def test_cancelled_work_is_no_failure():
    code, session, _, problems = talk("wait\nstop\n")
    assert code == 0 and session.said == ["wait", "stop"]
    assert "cancelled; nothing was changed" in problems and "stopped" in problems
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_proposed_edits_are_told():
    problems = talk("a\n", code=True)[3]
    assert "edits of a.py: /diff shows them" in problems and "has no end" in problems


def test_what_commands_ask_for(monkeypatch):
    replies = {
        "/stream": Reply("text", stream=iter([Delta("streamed")])),
        "/table": Reply(data=Table(("a", "b"), (("1", "2"),))),
        "/columns": Reply(data=Columns(("l", "r"), ("x", "y"))),
        "/answer": Reply(then="answer"),
    }
    monkeypatch.setattr(loop_module, "run_line", lambda session, line: replies[line])
    monkeypatch.setattr(Recorder, "answer", lambda self: iter([Delta("answered")]), raising=False)
    assert talk("/stream\n/table\n/columns\n/answer\n")[2] == "text\nstreamed\na  b\n1  2\n--- l\nx\n--- r\ny\nanswered\n"


def test_a_message_of_several_lines():
    view = PlainView(io.StringIO('"""\none\n\n two\n"""\nnext\n"""\nopen'), io.StringIO(), io.StringIO())
    assert [view.read() for _ in range(4)] == ["one\n\n two", "next", "open", None]


@pytest.mark.parametrize(("answer", "taken"), [("y\n", True), ("Yes\n", True), ("n\n", False), ("", False), ("what\n", False)])
def test_the_next_line_answers_a_question(answer, taken):
    out = io.StringIO()
    view = PlainView(io.StringIO(answer), out, io.StringIO())
    assert view.ui().confirm("Write?") is taken
    assert out.getvalue() == f"Write? [y/N] {'yes' if taken else 'no'}\n"


def test_somebody_without_terminal_has_no_editor():
    ui = PlainView(io.StringIO(), io.StringIO(), io.StringIO()).ui()
    assert isinstance(ui, Ui)
    for ask in (ui.edit, ui.copy):
        with pytest.raises(OptionError, match="terminal"):
            ask("x")


def test_files_in_messages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("one\n")
    code, session, _, problems = talk("see @a.txt\nsee @no/b.txt\n")
    assert session.said == ["see @a.txt\n\n``` a.txt\none\n```"] and code == 1
    assert "a.txt: 1 line" in problems and "no such file" in problems
