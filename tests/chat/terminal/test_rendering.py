"""What is drawn, without a terminal: regions, Markdown, answers, bars, the toolbar, replies."""

import io
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from lacewing.chat.commands.table import Reply
from lacewing.chat.session.events import Delta, Finished, Notice, Status
from lacewing.chat.terminal.answer import AnswerView
from lacewing.chat.terminal.below import toolbar_line
from lacewing.chat.terminal.markdown import LONG_FENCE, MarkdownStream
from lacewing.chat.terminal.progress import Bars, bar_line
from lacewing.chat.terminal.region import Region
from lacewing.chat.terminal.replies import plain_lines, renderables
from lacewing.console.output import Columns, Table
from tests.chat.terminal.emulator import Emulator

MARKDOWN = """# Title

Some **bold** text and `code`, <div>html</div>, [a link](http://x.y).
Second line.

1. one
2. two

3. three
   ```
   inside
   ```

Right above:
```python
def f(x):

    return x
```
| a | b |
|---|---|
| 1 | 2 |

~~~
open"""


def console(file=None, width=60, height=10):
    return Console(file=file or io.StringIO(), force_terminal=True, width=width, height=height, color_system="standard")


lines = st.lists(st.lists(st.sampled_from("abc"), max_size=8), max_size=12)


@given(lines)
def test_a_region_shows_the_newest(steps):
    screen = Emulator(height=10)
    screen.write("before\n")
    region = Region(screen, lambda: (80, 10))
    for step in steps:
        region.show(step)
        assert screen.text == "\n".join(["before", *step])


def test_lines_above_the_screen_stay():
    screen = Emulator(height=4)
    region = Region(screen, lambda: (80, 4))
    region.show(list("abcdef"))
    region.show(list("ABCDEFG"))
    assert screen.text.split() == list("abCDEFG")
    region.show(list("AB"))
    assert screen.text.split() == list("abC")


@given(st.lists(st.tuples(st.lists(st.sampled_from(["a", "b", "ab"]), max_size=7), st.integers(0, 7)), max_size=12), st.booleans())
def test_a_region_shows_the_newest_also_where_it_scrolls(steps, in_tmux):
    """Whatever settles stays, and what can be reached is as it was last shown."""
    screen = Emulator(height=8)
    region, kept = Region(screen, lambda: (120, 8)), []
    region.in_tmux = in_tmux
    for step, settled in steps:
        region.show(step, min(settled, len(step)))
        assert screen.text.split() == [*kept, *step]
        assert screen.cursor_hidden == (settled < len(step))
        kept += step[:settled]
    region.keep()
    assert not screen.cursor_hidden


def stories(width, count):
    """So many words, as lines of a screen."""
    return textwrap.wrap(" ".join(f"word{n}" for n in range(count)), width - 1)


@pytest.mark.parametrize(
    "sizes", [[(40, 10), (20, 10)], [(20, 10), (60, 10)], [(60, 12), (30, 8), (50, 12)], [(60, 5), (20, 5), (60, 5)]]
)
def test_a_resize_leaves_no_copies(sizes):
    screen = Emulator(height=sizes[0][1], width=sizes[0][0])
    screen.write("before\n")
    region, count = Region(screen, lambda: screen.size), 0
    for width, height in sizes:
        screen.resize(width, height)
        for _ in range(10):
            count += 1
            region.show(stories(width, count))
    shown = [word for word in screen.text.split() if word != "before"]  # the emulator may lose its topmost lines
    assert len(shown) == len(set(shown)) and shown[-1] == f"word{count - 1}"
    if sizes[0][1] == sizes[1][1] > 5:
        assert screen.text.split() == ["before", *(f"word{n}" for n in range(count))]


def test_only_what_changes_is_written():
    screen = Emulator()
    region = Region(screen, lambda: (80, 10))
    region.show(["a", "b"])
    writes = screen.writes
    region.show(["a", "b"])
    assert screen.writes == writes
    region.show(["a", "b", "c"], settled=2)
    region.show([])
    assert screen.text == "a\nb"


@pytest.mark.parametrize("size", [1, 2, 7, 50, 10_000])
def test_markdown_is_the_same_in_any_pieces(size):
    stream, done = MarkdownStream(console()), []
    for at in range(0, len(MARKDOWN), size):
        done += stream.push(MARKDOWN[at : at + size])
        stream.lines()
    text = "\n".join([*done, *stream.finish()])
    plain = Console(file=io.StringIO(), width=200)
    for word in ("Title", "bold", "<div>html</div>", "http://x.y", "three", "inside", "return", "open"):
        assert word in text, plain
    assert "**" not in text and "```" not in text and "~~~" not in text
    whole = MarkdownStream(console())
    assert text == "\n".join([*whole.push(MARKDOWN), *whole.finish()])


@given(st.text(alphabet="a*`~#-1.>|[]() \n<", max_size=120))
def test_any_markdown_streams(text):
    stream = MarkdownStream(console())
    for letter in text:
        stream.push(letter)
        stream.lines()
    stream.finish()


def test_long_code_becomes_final_while_it_streams():
    stream = MarkdownStream(console())
    text = "\n".join(f"line {n}" for n in range(3 * LONG_FENCE))
    final = stream.push(f"```\n{text}\n")
    assert len(final) > LONG_FENCE and len(stream.lines()) <= LONG_FENCE
    shown = [line.strip() for line in "\n".join(final + stream.finish()).replace("\x1b[49m", "").replace("\x1b[0m", "").split("\n")]
    assert shown == text.split("\n")


def answer(*events, unfolded=False):
    screen = Emulator(height=30)
    view = AnswerView(console(screen, height=30), unfolded=unfolded, clock=iter(range(10**6)).__next__)
    view.show(iter(events))
    return view, screen.text


def test_an_answer():
    view, text = answer(Delta("Hel"), Delta("lo **wor"), Delta("ld**"), Finished("stop", {"generated_tokens": 2}))
    assert text == "Hello world" and view.finished.reason == "stop"


def test_thoughts_are_folded():
    thoughts = [Delta(f"thought {n}\n", "reasoning") for n in range(40)]
    view, text = answer(*thoughts, Delta("Yes."), Finished("stop"))
    assert "thought 39" not in text and "80 words" in text and "Ctrl-O" in text and text.endswith("Yes.")
    assert view.thoughts.count("thought") == 40
    _, text = answer(*thoughts, Delta("Yes."), unfolded=True)
    assert "thought 0\nthought 1\n" in text and text.count("thought 39\n") == 1
    pieces = [Delta(piece, "reasoning") for piece in ("\nso", "me th", "ought\n\nan", "other", " one")]
    assert answer(*pieces, unfolded=True)[1].startswith("some thought\n\nanother one\nthought for")


def test_control_characters_never_reach_the_screen():
    view, text = answer(
        Notice("a\x1b[2J"), Delta("b\x1b]0;x\x07\x9b2J\r\n", "reasoning"), Delta("c\x1b[2J\x00`\x1b[H`"), unfolded=True
    )
    assert text.count("\N{REPLACEMENT CHARACTER}") == 7 and "\x1b" not in view.thoughts


def test_an_answer_that_fails_shows_what_came():
    screen = Emulator()

    def events():
        yield Delta("half")
        raise ValueError

    with pytest.raises(ValueError):
        AnswerView(console(screen)).show(events())
    assert screen.text == "half"


def test_bars():
    screen, now = Emulator(), [0.0]
    bars = Bars(screen, clock=lambda: now[0])
    bars("reading", 0, 100 * 2**20)
    assert screen.text == ""  # short work shows nothing
    now[0] = 2.0
    bars("reading", 50 * 2**20, 100 * 2**20)
    assert "reading ━" in screen.text and " 50% 50.0 MiB of 100.0 MiB, 25.0 MiB/s, 2 s left" in screen.text
    bars.cancelled = lambda: True
    now[0] = 3.0
    bars("reading", 60 * 2**20, 100 * 2**20)
    bars("other", 1, 2)
    assert "(stopping)" in screen.text and "other" not in screen.text
    now[0] = 3.5
    bars("reading", 61 * 2**20, 100 * 2**20)
    now[0] = 5.0
    bars("reading", 62 * 2**20, 100 * 2**20)
    assert "(stopping; Ctrl-C again leaves)" in screen.text
    now[0] = 6.0
    bars("reading", 100 * 2**20, 100 * 2**20)
    assert "reading" not in screen.text and "other" in screen.text
    bars.clear()
    assert screen.text == ""


def test_small_totals_are_counts():
    assert "3 of 4, 3/s, 0 s left" in bar_line("prompt", 3, 4, 1.0)
    bar_line("x", 0, 1, 0.0)


def test_the_toolbar_gives_way():
    status = Status("models/SmolLM2-135M", "chatml", "lazy", "cpu", 50, 100, 12.34, True)
    full = toolbar_line(status, 200)
    assert full == "models/SmolLM2-135M · chatml · lazy · cpu · ▅ 50/100 · 12.3 tok/s · code"
    for width in range(100):
        assert len(toolbar_line(status, width)) <= width
    assert "50/100" in toolbar_line(status, 50)


REPLIES = [
    Reply("plain [bold]text[/bold] \x1b[2J"),
    Reply("# head", kind="markdown"),
    Reply("--- a\n+++ b\n@@ 1 @@\n-x\n+y\n z", kind="diff"),
    Reply("<s>user", kind="code"),
    Reply(data=Table(("name", "size"), (("a\x1b[2J", "10 MiB"), ("longer", "1")))),
    Reply("both", data=Columns(("left", "right"), ("one\ntwo", "three"))),
]


@pytest.mark.parametrize("reply", REPLIES)
def test_replies_on_a_screen(reply):
    screen = Emulator(height=100)
    for content in renderables(reply):
        console(screen).print(content)
    words = "plain [bold]text[/bold]", "head", "+y", "<s>user", "longer", "three"
    assert any(word in screen.text for word in words)


def test_replies_in_a_pipe():
    assert list(plain_lines(REPLIES[4])) == ["name    size", "a\N{REPLACEMENT CHARACTER}[2J   10 MiB", "longer  1"]
    assert list(plain_lines(REPLIES[5])) == ["both", "--- left", "one", "two", "--- right", "three"]


def test_plain_answers():
    text = "# not a *head*\n\n  | a |\n- " + "word " * 30
    screen = Emulator(height=30)
    AnswerView(console(screen, height=30), plain=True).show(Delta(each) for each in text)
    assert screen.text.split("\n")[:4] == ["# not a *head*", "", "  | a |", "- " + "word " * 10 + "word"]
    assert screen.text.split() == text.split()
