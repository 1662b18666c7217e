import ast
import io
import signal
from pathlib import Path

import pytest

import lacewing
from lacewing.console.interrupt import Interrupt
from lacewing.console.output import Output, Table, aligned_lines, clean, clean_answer, clean_line, print_json, print_text


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_second_ctrl_c_means_it():
    with pytest.raises(KeyboardInterrupt), Interrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert interrupt()
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_control_characters_do_not_reach_a_terminal():
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        Output(stream).write("a\x1b[2Jb\tc\r\n\x9b\u202e")
    mark = "\N{REPLACEMENT CHARACTER}"
    assert terminal.getvalue() == f"a{mark}[2Jb\tc\n{mark}{mark}"
    assert pipe.getvalue() == "a\x1b[2Jb\tc\r\n\x9b\u202e"


HIDDEN = [*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C, 0x2028, 0x2029, *range(0xE0000, 0xE0080)]
CONTROLS = [code for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"]
MARK = "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("code", [*HIDDEN, *CONTROLS, 0xD800, 0xDC80])
def test_names_and_messages(code, capsys):
    """U+FFFD, so that it is seen that something was there."""
    assert clean(f"a{chr(code)}b") == clean_line(f"a{chr(code)}b") == f"a{MARK}b"
    assert list(aligned_lines(Table(("name",), ((f"a{chr(code)}b",),)))) == ["name", f"a{MARK}b"]
    print_text(f"a{chr(code)}b")
    print_json({f"a{chr(code)}b": chr(code)})
    plain, as_json, _ = capsys.readouterr().out.split("\n")
    assert plain == f"a{MARK}b" and as_json.isascii() and as_json.isprintable()


def test_a_name_stays_on_its_line():
    assert clean_line("a\nlacewing: all is well\tx") == "a lacewing: all is well x" and clean("a\r\nb\tc") == "a\nb\tc"


@pytest.mark.parametrize("code", [*range(0x202A, 0x202F), *range(0x2066, 0x206A), *CONTROLS])
def test_answers_do_not_control_either(code):
    assert clean_answer(f"a{chr(code)}b") == f"a{MARK}b"


@pytest.mark.parametrize(
    "text",
    [
        "\N{MAN}\u200d\N{WOMAN}\u200d\N{GIRL}",  # a family
        "\N{BLACK HEART SUIT}\ufe0f 1\ufe0f\u20e3 \N{WAVING HAND SIGN}\N{EMOJI MODIFIER FITZPATRICK TYPE-4}",
        "\U0001f1e9\U0001f1ea",  # a flag of two letters
        "\u0645\u0631\u062d\u0628\u0627 \u200f(1)\u200e \u061c2",
        "\u05e9\u05dc\u05d5\u05dd\u200f!",
        "\u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian, with its joiner
        "\u0915\u094d\u200d\u0937 soft\u00adhyphen \u2060",
        "def f():\n\treturn 1\n",
    ],
)
def test_answers_that_stay_as_they_are(text):
    terminal = Terminal()
    for piece in text:
        Output(terminal).write(piece)
    assert terminal.getvalue() == clean_answer(text) == text


def test_what_nobody_sees_is_left_out_of_answers():
    assert clean_answer("\U0001f3f4\U000e0067\U000e0062\U000e007f") == "\U0001f3f4"
    assert clean_answer("one\u2028two\u2029three\r\n") == "one\ntwo\nthree\n"


def test_nothing_is_printed_elsewhere():
    """`print` is for `console.output`; what rich and prompt-toolkit are given is cleaned before."""
    package = Path(lacewing.__file__).parent
    found = set()
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                found.add(file.relative_to(package).as_posix())
    assert found == {"console/output.py", "chat/terminal/screen.py"}  # the latter: thoughts in their style, cleaned as they came
