import pytest

from lacewing.chat.commands.table import Argument, Command, CommandTable, Option, Reply, is_command
from lacewing.chat.commands.table import _Parser as Parser
from lacewing.errors import OptionError


def parse(text, *parts):
    arguments = tuple(part for part in parts if isinstance(part, Argument))
    options = tuple(part for part in parts if isinstance(part, Option))
    return Parser(Command("x", lambda chat: Reply(), arguments, options), text).parse()


MODEL = (Argument("target", "model"), Option("backend", "backend"), Option("lazy"), Option("context", "number"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("a.gguf", {"target": "a.gguf"}),
        ('"my file.gguf" --lazy', {"target": "my file.gguf", "lazy": True}),
        ("--context 12 C:\\models\\a.gguf", {"target": "C:\\models\\a.gguf", "context": 12}),
        ("--context=12 it's.gguf", {"target": "it's.gguf", "context": 12}),
        ("- --backend cpu", {"target": "-", "backend": "cpu"}),
        ("'--odd'", {"target": "--odd"}),
    ],
)
def test_lines(text, expected):
    assert parse(text, *MODEL) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a b", "unexpected argument"),
        ("--nope", "unknown option --nope"),
        ("--context", "needs a value"),
        ("--context x", "whole number"),
        ("--lazy=yes", "takes no value"),
        ('"a', "not closed"),
        ("a\0b", "null character"),
    ],
)
def test_wrong_lines(text, problem):
    with pytest.raises(OptionError, match=problem):
        parse(text, *MODEL)


def test_kinds():
    assert parse("on", Argument("state", "on/off")) == {"state": True}
    assert parse("show", Argument("state", "on/off", ("show", "hide"))) == {"state": "show"}
    assert parse("0.5", Argument("value", "decimal")) == {"value": 0.5}
    assert parse("off", Argument("value", "number", ("off",))) == {"value": "off"}
    with pytest.raises(OptionError, match="must be show, hide, on or off"):
        parse("perhaps", Argument("state", "on/off", ("show", "hide")))
    with pytest.raises(OptionError, match="target is missing; usage: /x TARGET"):
        parse("", Argument("target", required=True))


def test_the_rest_is_as_typed():
    assert parse("You are  'x' -- \"y\"", Argument("text", rest=True)) == {"text": "You are  'x' -- \"y\""}
    assert parse("'a b'", Argument("text", rest=True)) == {"text": "a b"}
    assert parse("--force  a  b", Argument("text", rest=True), Option("force")) == {"force": True, "text": "a  b"}


def test_table():
    table = CommandTable()
    table.add(Command("model", lambda chat: Reply(), aliases=("m",)))
    assert table.find("m").name == "model" and table.names() == ["m", "model"]
    with pytest.raises(OptionError, match="did you mean /model"):
        table.find("modle")
    with pytest.raises(ValueError, match="two commands"):
        table.add(Command("m", lambda chat: Reply()))


def test_messages_and_commands():
    assert is_command("/help") and not is_command("//a comment") and not is_command("hi")
