"""The loop and the plain view, with a session that only records."""

import io
import signal
from typing import ClassVar

import pytest

from lacewing.chat.commands.table import Reply, parse_line
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
        self.attachments = []

    def say(self, text):
        self.said.append(text)
        if text == "fail":
            raise OptionError("no\x1b[2J way")
        if text == "slow":
            self.attachments = ["one", "two"]
            yield Finished("cancelled")
            return
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


def talk(text, interactive=False, **changes):
    out, problems = io.StringIO(), io.StringIO()
    view = PlainView(io.StringIO(text), out, problems)
    view.interactive = interactive
    session = Recorder(view)
    session.settings = Settings(**changes)
    return Loop(session, view).run(), session, out.getvalue(), problems.getvalue()


def test_messages():
    code, session, out, problems = talk("Hello\n\n  //x  \n/quit\nnever\n", show_reasoning=False)
    assert code == 0 and session.said == ["Hello", "/x"]
    assert out == "answer to Hello\x1b[1m\nanswer to /x\x1b[1m\n"
    assert problems == "lacewing: first notice\n" + 2 * "lacewing: a notice\n"


def test_thoughts_in_a_pipe_are_no_part_of_the_answer():
    _, _, out, problems = talk("a\nb\n", show_reasoning=True)
    assert out == "answer to a\x1b[1m\nanswer to b\x1b[1m\n"
    assert problems == "lacewing: first notice\n" + 2 * "lacewing: a notice\nthought \n"


def test_failures_end_a_line_only():
    code, session, out, problems = talk("fail\nfault\nfine\n", show_reasoning=False)
    assert code == 1 and session.said == ["fail", "fault", "fine"] and "answer to fine" in out
    assert "no\N{REPLACEMENT CHARACTER}[2J way" in problems and "TypeError: oh at test_loop.py" in problems


def test_what_became_of_a_message():
    """One that is cancelled before its answer begins, or that fails, is taken back; nobody can continue its answer."""
    problems = talk("slow\nfail\n")[3]
    assert "cancelled before the answer began; your message was taken back; 2 attached files will go with the next one" in problems
    assert problems.count("taken back") == 2 and "/continue" not in problems and "Up key" not in problems


def test_a_command_cancelled_before_its_answer(monkeypatch):
    monkeypatch.setattr(loop_module, "run_line", lambda session, line: Reply(stream=iter([Finished("cancelled")])))
    assert "cancelled before the answer began; nothing was changed" in talk("/retry\n")[3]


def test_a_person_who_mistypes_has_not_failed():
    """The exit code is for scripts."""
    assert talk("fail\n")[0] == 1 and talk("fail\n", interactive=True)[0] == 0
    assert "the Up key brings it back" in talk("fail\n", interactive=True)[3]


def test_marks_and_blanks_before_a_line(monkeypatch):
    lines = []
    monkeypatch.setattr(loop_module, "run_line", lambda session, line: lines.append(line) or Reply())
    text = "\ufeff/one\n  /two\n\ufeff \n\ufeffHello\n  //x\n"
    _, session, _, _ = talk(text)
    assert [line.strip() for line in lines] == ["/one", "/two"] and session.said == ["Hello", "/x"]
    assert parse_line("\ufeff  /help\tquit")[1] == {"command": "quit"} and parse_line("/help")[1] == {}


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
    }
    monkeypatch.setattr(loop_module, "run_line", lambda session, line: replies[line])
    _, _, answers, about = talk("/stream\n/table\n/columns\n")
    assert answers == "streamed\n"
    assert about == "lacewing: first notice\ntext\na  b\n1  2\n--- l\nx\n--- r\ny\n"


def test_a_message_of_several_lines():
    view = PlainView(io.StringIO('"""\none\n\n two\n"""\nnext\n"""\nopen'), io.StringIO(), io.StringIO())
    assert [view.read() for _ in range(4)] == ["one\n\n two", "next", "open", None]


@pytest.mark.parametrize(("answer", "taken"), [("y\n", True), ("Yes\n", True), ("n\n", False), ("", False), ("what\n", False)])
def test_the_next_line_answers_a_question(answer, taken):
    out, about = io.StringIO(), io.StringIO()
    view = PlainView(io.StringIO(answer), out, about)
    assert view.ui().confirm("Write?") is taken
    assert out.getvalue() == ""
    assert about.getvalue() == f"Write? [y/N] {'yes' if taken else 'no'}\n"


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
