"""Markdown on a screen: nothing that was written is lost, and at 40 columns it can still be read."""

import io

import pytest
from rich.console import Console
from rich.text import Text

from lacewing.chat.terminal.markdown import MarkdownStream, PlainStream, SafeMarkdown, rendered_lines
from lacewing.chat.terminal.tables import FittedTable


def rendered(text, width=80):
    return "\n".join(rendered_lines(Console(file=io.StringIO(), width=width), SafeMarkdown(text)))


POEM = "Roses are red,\nViolets are blue,\n  and this is indented,\nSugar is sweet."


@pytest.mark.parametrize(
    "text",
    [
        POEM,
        "Name: Anna\nCity: Oslo",
        r"The root of \(x^2 + y_1 * z_2 * 3\) and of \[ a * b*c \].",
        "\\[\na\n+ b\n- c \\\\\n= d\n\\]",
        "$$\n\\sum_{i} x_i\n- y\n$$",
        "$a*b*c$ costs $5, not $6",
        r"C:\Users\_me\*.txt and \\server\share\[old]",
        r"a \* b \_c\_ \# \` \n \d+\.\d+ \|",
        "first \\\nsecond \\",
        "\\",
        "<div>html</div> <br>",
        "see ![a picture](http://x/y.png)",
    ],
)
def test_what_is_written_is_shown(text):
    shown = rendered(text)
    assert shown == (text if "![" not in text else "see !a picture (http://x/y.png)")


def test_markup_still_works():
    assert rendered("**b** `c\\d` *e*\n\n- one\n  more\n- two") == "b c\\d e\n\n • one\n   more\n • two"
    assert rendered("a  \nb") == "a\nb"
    assert rendered("| a\\|b | c |\n|---|---|\n| 1 | 2 |").strip().split("\n")[0] == "a|b  c"


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_lines_stream(size):
    stream, done = MarkdownStream(Console(file=io.StringIO(), width=80)), []
    for at in range(0, len(POEM), size):
        done += stream.push(POEM[at : at + size])
        stream.lines()
    assert "\n".join([*done, *stream.finish()]) == POEM


WIDE = ("model", "size", "quant", "architecture", "fit")
ROWS = [("smollm2-135m-instruct", "138.1 MiB", "Q8_0", "llama", "fits (eager, 138.1 MiB of weights)"), ("other", "", "", "", "no")]


def table(headings, rows, width):
    cells = [[Text(cell) for cell in row] for row in rows]
    return rendered_lines(Console(file=io.StringIO(), width=width + 1), FittedTable([Text(each) for each in headings], cells))


def test_a_table_that_fits_is_one():
    assert table(("a", "b"), [("1", "2")], 40) == ["a  b", "────", "1  2"]
    assert table(("", ""), [("1", "2")], 40) == ["1  2"]
    assert table(("what", "about"), [("one", "two words and more")], 16) == [
        "what  about", "────────────────", "one   two words", "      and more"
    ]  # fmt: skip


def test_a_table_too_wide_becomes_rows():
    shown = table(WIDE, ROWS, 39)
    assert shown[0] == "smollm2-135m-instruct" and "  size: 138.1 MiB" in shown and shown[-2:] == ["other", "  fit: no"]
    assert all(len(line) <= 39 for line in shown)
    marked = table(("", *WIDE), [("*", *row) for row in ROWS], 39)
    assert marked[0] == "* smollm2-135m-instruct"
    text = "| Quarter | Revenue | Expenses | Profit | Headcount |\n|---|---|---|---|---|\n| Q1 | 100,000 | 80,000 | 20,000 | 12 |"
    assert rendered(text, 40).strip() == "Q1\n  Revenue: 100,000\n  Expenses: 80,000\n  Profit: 20,000\n  Headcount: 12"


def test_no_word_is_cut_where_there_is_room():
    words = ("Streaming answers", "Tokens are shown as they come from the model, one after the other", "done")
    for width in range(30, 90):
        shown = " ".join(table(("Feature", "Description", "Status"), [words], width)).split()
        assert set(" ".join(words).split()) <= set(shown), width


@pytest.mark.parametrize("kind", [MarkdownStream, PlainStream])
@pytest.mark.parametrize(
    ("text", "again"),
    [
        ("one two three four", []),
        ("- one\n- two three\n- four", []),
        ("```py\na = 1\nb = 2\nc = 3", []),
        ("| a | b |\n|---|---|\n| 1 | 2 |\n", ["a", "b"]),
    ],
)
def test_what_is_frozen_is_not_shown_again(kind, text, again):
    """Cut where it may be, all of the text is there once; only the head of a table is repeated."""
    for cut in range(len(text)):
        stream = kind(Console(file=io.StringIO(), width=80))
        shown = stream.push(text[:cut]) + stream.lines()
        stream.freeze()
        shown += stream.push(text[cut:]) + stream.finish()
        letters = sorted(letter for letter in "".join(shown) if letter.isalnum())
        wanted = sorted(letter for letter in text if letter.isalnum())
        wanted = wanted if kind is PlainStream else [letter for letter in wanted if "```" not in text or letter not in "py"]
        rest = list(letters)
        for letter in wanted:
            rest.remove(letter)
        assert not set(rest) - {"a", "b"} if again else not rest, (cut, shown)
