"""Markdown as it streams: blocks that are complete are final, only the last one is rendered again."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markdown import Heading, Markdown, TableElement
from rich.segment import Segment
from rich.syntax import Syntax
from rich.text import Text

from lacewing.chat.terminal.tables import FittedTable

THEME = "ansi_dark"  # the terminal's own sixteen colours, on its own background
LONG_FENCE = 120  # lines of code after which the first of them are final
LONG_BLOCK = 16  # lines of other blocks: what is final is not written again when the terminal gets another width
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)")
_ITEM = re.compile(r"\s*(?:[-*+]|\d{1,9}[.)])\s")
_FORMULA = re.compile(r"\\\(.{0,2000}?\\\)|\\\[.{0,2000}?\\\]|\$\$.{1,2000}?\$\$|\$(?!\s)[^$\n]{0,200}?(?<!\s)\$(?!\d)", re.DOTALL)
_TABLE = re.compile(r"[\s|]*:?-+[\s|:-]*$")
_LANGUAGE = re.compile(r"[\w+#.-]+")


class _LeftHeading(Heading):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.text.justify = "left"
        self.text.stylize("bold underline" if self.tag == "h1" else "bold")
        yield self.text


class _Table(TableElement):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        headings = [cell.content for cell in self.header.row.cells] if self.header and self.header.row else []
        rows = [[cell.content for cell in row.cells] for row in self.body.rows] if self.body else []
        yield FittedTable(headings, rows)


def _line_end(state: StateInline, silent: bool) -> bool:
    """A line ends where it is written to end, and the next keeps its indentation."""
    if state.src[state.pos] != "\n":
        return False
    if not silent:
        state.pending = state.pending.rstrip(" ")
        state.push("hardbreak", "br", 0)
    state.pos += 1
    return True


def _backslash(state: StateInline, silent: bool) -> bool:
    """A backslash is shown as it is written, and what it escapes marks nothing: paths, patterns and formulas stay whole."""
    if state.src[state.pos] != "\\":
        return False
    formula = _FORMULA.match(state.src, state.pos)
    single = state.pos + (1 if state.src[state.pos + 1 : state.pos + 2] == "\n" else 2)
    return _verbatim(state, silent, formula.end() if formula else min(single, state.posMax))


def _dollars(state: StateInline, silent: bool) -> bool:
    formula = _FORMULA.match(state.src, state.pos) if state.src[state.pos] == "$" else None
    return formula is not None and _verbatim(state, silent, formula.end())


def _verbatim(state: StateInline, silent: bool, end: int) -> bool:
    if not silent:
        state.pending += state.src[state.pos : end]
    state.pos = end
    return True


def _display(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A formula of several lines: one that begins with a plus, say, does not begin a list."""
    lines = [state.src[state.bMarks[at] + state.tShift[at] : state.eMarks[at]].rstrip() for at in range(start, end)]
    close = {"\\[": "\\]", "$$": "$$"}.get(lines[0][:2])
    length = next((at + 1 for at, line in enumerate(lines) if close and line.endswith(close) and (at or len(line) > 3)), 0)
    if not length or "" in lines[:length]:
        return False
    if not silent:
        state.line = start + length
        state.push("paragraph_open", "p", 1)
        inline = state.push("inline", "", 0)
        inline.content, inline.children = "\n".join(lines[:length]), []
        state.push("paragraph_close", "p", -1)
    return True


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"]).disable("image")
    parser.inline.ruler.at("newline", _line_end)
    parser.inline.ruler.at("escape", _backslash)
    parser.inline.ruler.after("escape", "dollars", _dollars)
    parser.block.ruler.before("code", "display", _display, {"alt": ["paragraph"]})
    return parser


class SafeMarkdown(Markdown):
    """Markdown that loses nothing: line ends, backslashes and HTML are shown as they are written, and the targets of links."""

    elements: ClassVar = {**Markdown.elements, "heading_open": _LeftHeading, "table_open": _Table}

    def __init__(self, markup: str):
        super().__init__("", code_theme=THEME, hyperlinks=False)
        self.markup = markup
        self.parsed = _parser().parse(markup)


def rendered_lines(console: Console, content: RenderableType) -> list[str]:
    """What rich makes of it, as lines with escape sequences, no wider than the screen less one column."""
    options = console.options.update(width=max(console.width - 1, 1))
    rows = console.render_lines(content, options, pad=False)
    return [_line(console, row) for row in rows]


def _line(console: Console, row: list[Segment]) -> str:
    """One line, without the spaces that rich fills it up with."""
    while row and not row[-1].text.strip():
        row = row[:-1]
    row = [*row[:-1], Segment(row[-1].text.rstrip(), row[-1].style)] if row else []
    system: Any = None if console.no_color else console._color_system
    return "".join(
        segment.style.render(segment.text, color_system=system) if segment.style and console.is_terminal else segment.text
        for segment in row
    )


class MarkdownStream:
    """Takes pieces of Markdown, gives lines: `final` have been, `lines()` are all of the block that is still open."""

    def __init__(self, console: Console):
        self._console = console
        self._source: list[str] = [""]  # lines of the open block; the last is not complete
        self._begun = False  # whether a block stands above
        self._shown: list[str] = []  # the open block when it was last shown
        self._joins = False  # the open block continues one whose first lines are final

    def push(self, text: str) -> list[str]:
        """Lines that are final now."""
        head, *rest = text.split("\n")
        self._source[-1] += head
        done: list[str] = []
        for line in rest:
            self._source.append(line)
            # A line is judged when it is complete, and that before it decides whether the block ends.
            done += self._close_before_last()
        return done

    def lines(self) -> list[str]:
        """The open block as it looks now."""
        self._shown = list(self._source)
        return self._render(self._source)

    def freeze(self) -> None:
        """What `lines` gave last stays as it is on the screen; the block goes on below it."""
        shown, source = self._shown, self._source
        if source[: len(shown) - 1] == shown[:-1] and source[len(shown) - 1].startswith(shown[-1]) and any(shown):
            table = len(shown) > 2 and _TABLE.match(shown[1])
            head = shown[: 2 if table else 1 if len(shown) > 1 and _opening(shown) else 0]
            mark = not re.search(r"\w", shown[-1]) or (len(shown) == 1 and _opening(shown))  # it may become more than text
            self._source = [*head, source[len(shown) - 1][0 if mark else len(shown[-1]) :], *source[len(shown) :]]
            self._begun = self._joins = True

    def finish(self) -> list[str]:
        """The rest."""
        lines, self._source = self._render(self._source), [""]
        return lines

    def _close_before_last(self) -> list[str]:
        """End the block when its last complete line shows that it is over."""
        *block, last = self._source
        fence = _opening(block)
        if fence is not None:
            if len(block) > 1 and _closes(block[-1], fence):
                return self._close(block, [last])
            return self._close_head(block, len(block) // 2, last) if len(block) > LONG_FENCE else []
        if not block or not any(line.strip() for line in block):
            self._source = [last]
            return []
        newest = block[-1]
        if len(block) < 2 or not newest.strip() or newest[:1].isspace() or _inside_fence(block[:-1]):
            return []
        ended = not block[-2].strip() and not (_ITEM.match(block[0]) and _ITEM.match(newest))
        if ended or _FENCE.match(newest):
            return self._close(block[:-1], [newest, last])
        items = _ITEM.match(block[0]) and _ITEM.match(newest)
        return self._close_head(block, len(block) - 1, last) if len(block) > LONG_BLOCK and items else []

    def _close(self, block: list[str], rest: list[str]) -> list[str]:
        lines = self._render(block)
        self._begun, self._joins, self._source = self._begun or bool(lines), False, rest
        return lines

    def _close_head(self, block: list[str], at: int, last: str) -> list[str]:
        """The first lines of a long fence or list are final."""
        fence = _opening(block) is not None
        lines = self._render(block[:at])
        self._begun = self._joins = True
        self._source = [*block[: int(fence)], *block[at:], last]
        return lines

    def _render(self, block: list[str]) -> list[str]:
        if not any(line.strip() for line in block):
            return []
        fence = _opening(block)
        if fence is None:
            lines = rendered_lines(self._console, SafeMarkdown("\n".join(block)))
        else:
            body = block[1:-1] if _closes(block[-1], fence) and len(block) > 1 else block[1:]
            while body and not body[-1].strip() and block[-1] is body[-1]:
                body = body[:-1]  # the line that is just beginning
            lines = rendered_lines(self._console, code("\n".join(body), fence[1])) if body else []
        while lines and not lines[-1].strip():
            lines.pop()
        while lines and not lines[0].strip():
            lines.pop(0)
        return ["", *lines] if lines and self._begun and not self._joins else lines


class PlainStream:
    """As `MarkdownStream`, for text that is shown as it is written."""

    def __init__(self, console: Console):
        self._console, self._line, self._shown = console, "", ""

    def push(self, text: str) -> list[str]:
        """Lines that are final now."""
        *complete, self._line = (self._line + text).split("\n")
        return [row for line in complete for row in self._wrapped(line) or [""]]

    def lines(self) -> list[str]:
        """The line that is still open."""
        self._shown = self._line
        return self._wrapped(self._line)

    def finish(self) -> list[str]:
        """The rest."""
        line, self._line = self._line, ""
        return self._wrapped(line)

    def freeze(self) -> None:
        """What `lines` gave last stays as it is on the screen; the line goes on below it."""
        self._line = self._line.removeprefix(self._shown)

    def _wrapped(self, line: str) -> list[str]:
        return rendered_lines(self._console, Text(line)) if line else []


def code(text: str, language: str) -> Syntax:
    """Highlighted code; an unknown language is plain text."""
    known = language if _LANGUAGE.fullmatch(language) else "text"
    return Syntax(text, known, theme=THEME, word_wrap=True, background_color="default", padding=(0, 0, 0, 2))


def _opening(block: list[str]) -> tuple[str, str] | None:
    """The marks and the language of the fence that a block begins with."""
    match = _FENCE.match(block[0]) if block else None
    return (match[1], match[2]) if match else None


def _closes(line: str, fence: tuple[str, str]) -> bool:
    text = line.strip()
    return len(text) >= len(fence[0]) and set(text) == {fence[0][0]}


def _inside_fence(block: list[str]) -> bool:
    """Whether a fence within the block (in a list, say) is still open."""
    open_fence: tuple[str, str] | None = None
    for line in block:
        match = re.match(r"\s*(`{3,}|~{3,})", line)
        if open_fence is None and match:
            open_fence = (match[1], "")
        elif open_fence is not None and _closes(line, open_fence):
            open_fence = None
    return open_fence is not None
