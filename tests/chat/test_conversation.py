import io
import signal

import pytest

from lacewing.chat.conversation import converse, lines
from lacewing.chat.interrupt import Interrupt
from lacewing.chat.output import Output
from lacewing.errors import ContextOverflowError


class FakeModel:
    """Answers with what it has been told; "long" does not fit."""

    def __init__(self):
        self.seen = []

    def chat(self, messages, *, cancelled, **sampling):
        self.seen.append([(m["role"], m["content"]) for m in messages])
        if messages[-1]["content"] == "long":
            raise ContextOverflowError("too long")
        for word in messages[-1]["content"].split():
            if cancelled():
                return
            if word == "ctrl-c":
                signal.raise_signal(signal.SIGINT)
            yield word + " "


class Terminal(io.StringIO):
    def isatty(self):
        return True


def talk(*said):
    model, out, complaints = FakeModel(), io.StringIO(), []
    converse(model, iter(said), Output(out), complaints.append, temperature=0)
    return model.seen, out.getvalue(), complaints


def test_turns_add_up():
    seen, out, complaints = talk("one", "two three")
    assert seen[1] == [("user", "one"), ("assistant", "one "), ("user", "two three")]
    assert out == "one \ntwo three \n" and complaints == []


def test_an_error_forgets_its_turn():
    seen, _, complaints = talk("one", "long", "two")
    assert complaints == ["too long"] and [text for _, text in seen[2]] == ["one", "one ", "two"]


def test_ctrl_c_stops_the_answer_only():
    seen, out, _ = talk("a ctrl-c b c", "next")
    assert out == "a ctrl-c \nnext \n" and seen[1][1] == ("assistant", "a ctrl-c ")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_second_ctrl_c_means_it():
    with pytest.raises(KeyboardInterrupt), Interrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert interrupt()
        signal.raise_signal(signal.SIGINT)


def test_lines_of_a_pipe():
    assert list(lines(io.StringIO("a\n\n  b \n/quit\nc\n"))) == ["a", "b"]
    assert list(lines(io.StringIO("last"))) == ["last"]


def test_lines_of_a_terminal(capsys):
    answers = iter(["a", KeyboardInterrupt, "", "b", EOFError])

    def ask(prompt):
        answer = next(answers)
        if isinstance(answer, str):
            return answer
        raise answer

    assert list(lines(Terminal(), ask)) == ["a", "b"]


def test_control_characters_do_not_reach_a_terminal():
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        Output(stream).write("a\x1b[2Jb\tc\n\x9b")
    assert terminal.getvalue() == "a\N{REPLACEMENT CHARACTER}[2Jb\tc\n\N{REPLACEMENT CHARACTER}"
    assert pipe.getvalue() == "a\x1b[2Jb\tc\n\x9b"
