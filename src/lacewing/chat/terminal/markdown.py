"""Markdown as it streams: blocks that are complete are final, only the last one is rendered again."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markdown import Heading, Markdown
from rich.segment import Segment
from rich.syntax import Syntax

THEME = "ansi_dark"  # the terminal's own sixteen colours, on its own background
LONG_FENCE = 120  # lines of code after which the first of them are final
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)")
_ITEM = re.compile(r"\s*(?:[-*+]|\d{1,9}[.)])\s")
_LANGUAGE = re.compile(r"[\w+#.-]+")


class _LeftHeading(Heading):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.text.justify = "left"
        self.text.stylize("bold underline" if self.tag == "h1" else "bold")
        yield self.text


class SafeMarkdown(Markdown):
    """Markdown that shows HTML as it is written, rather than leaving it out, and the targets of links."""

    elements: ClassVar = {**Markdown.elements, "heading_open": _LeftHeading}

    def __init__(self, markup: str):
        super().__init__("", code_theme=THEME, hyperlinks=False)
        self.markup = markup
        self.parsed = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"]).parse(markup)


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
        self._fence_joins = False  # the open fence continues one whose first lines are final

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
        return self._render(self._source)

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
            if len(block) > LONG_FENCE:
                return self._close_fence_head(block, last)
            return []
        if not block or not any(line.strip() for line in block):
            self._source = [last]
            return []
        newest = block[-1]
        if len(block) < 2 or not newest.strip() or newest[:1].isspace() or _inside_fence(block[:-1]):
            return []
        ended = not block[-2].strip() and not (_ITEM.match(block[0]) and _ITEM.match(newest))
        return self._close(block[:-1], [newest, last]) if ended or _FENCE.match(newest) else []

    def _close(self, block: list[str], rest: list[str]) -> list[str]:
        lines = self._render(block)
        self._begun, self._fence_joins, self._source = self._begun or bool(lines), False, rest
        return lines

    def _close_fence_head(self, block: list[str], last: str) -> list[str]:
        head, tail = block[: len(block) // 2], block[len(block) // 2 :]
        lines = self._render(head)
        self._begun = self._fence_joins = True
        self._source = [block[0], *tail, last]
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
        return ["", *lines] if lines and self._begun and not self._fence_joins else lines


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
