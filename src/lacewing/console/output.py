"""What is printed: text that is safe for a terminal, and tables. Everything that we print goes through here."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TextIO

from lacewing.options import spelled

_MARK = "\N{REPLACEMENT CHARACTER}"
# Control characters but for line ends and tabs; what embeds or overrides a direction of writing, so that a line reads
# differently from what it is; halves of characters, as in names of files that are not UTF-8.
_CONTROLS = "\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u206f\\ud800-\\udfff"
# In a name, also what is not seen: marks of direction, separators of lines, annotations, tags.
_HIDDEN = "\\u061c\\u200e\\u200f\\u2028\\u2029\\ufff9-\\ufffb\\U000e0000-\\U000e007f"
_NOT_IN_ANSWERS, _NOT_IN_NAMES = re.compile(f"[{_CONTROLS}]"), re.compile(f"[{_CONTROLS}{_HIDDEN}]")
_SEPARATORS = dict.fromkeys((0x2028, 0x2029), "\n")
_ANSWER = _SEPARATORS | dict.fromkeys(range(0xE0000, 0xE0080))  # no tags, which are text that nobody sees


def clean(text: str) -> str:
    """For names, messages and whatever else a file may hold: nothing that controls a terminal, turns text round, or is not seen."""
    return _NOT_IN_NAMES.sub(_MARK, text.replace("\r\n", "\n"))


def clean_line(text: str) -> str:
    """The same on one line, so that a name cannot begin a line of its own."""
    return clean(text).translate({9: " ", 10: " "})


def clean_answer(text: str) -> str:
    """For what a model says: as `clean`, but the marks that Arabic, Hebrew and emoji are written with stay."""
    return _NOT_IN_ANSWERS.sub(_MARK, text.replace("\r\n", "\n").translate(_ANSWER))


def print_text(text: str, stream: TextIO | None = None) -> None:
    """A line or several, cleaned, options spelled as flags, on standard output or on `stream`, flushed."""
    print(clean(spelled(text)), file=stream or sys.stdout, flush=True)


QUIET, NORMAL, VERBOSE = range(3)
_level = NORMAL


def set_level(level: int) -> None:
    """How much stands beside the results from now on: QUIET, NORMAL or VERBOSE."""
    global _level
    _level = level


def is_quiet() -> bool:
    """Whether only results and errors are wanted."""
    return _level == QUIET


def is_verbose() -> bool:
    """Whether the reasons are wanted too."""
    return _level == VERBOSE


def notice(text: str) -> None:
    """A line on standard error, unless a person wants quiet."""
    if not is_quiet():
        print_text(f"lacewing: {clean_line(text)}", sys.stderr)


def detail(text: str) -> None:
    """A line on standard error for a person who wants to know more."""
    if is_verbose():
        notice(text)


def print_json(value: Any) -> None:
    """One line of ASCII; what else is a control character in it is an escape of JSON."""
    import json

    print(json.dumps(value).replace("\x7f", "\\u007f"), flush=True)


def print_facts(facts: dict[str, Any], page: Callable[[dict[str, Any]], str], *, as_json: bool) -> None:
    """As JSON, or as the page that is made of them."""
    if as_json:
        print_json(facts)
    else:
        print_text(page(facts))


class Output:
    """Writes pieces of an answer as they come, flushed; cleaned if `stream` is a terminal, else as the model wrote them."""

    def __init__(self, stream: TextIO):
        self.stream, self._terminal = stream, stream.isatty()
        self._fresh = True  # at the start of a line

    def write(self, text: str) -> None:
        if text:
            self._fresh = text.endswith("\n")
            self.stream.write(clean_answer(text) if self._terminal else text)
            self.stream.flush()

    def end_line(self) -> None:
        """Go to a new line unless at the start of one."""
        if not self._fresh:
            self.write("\n")


@dataclass(frozen=True)
class Table:
    """Rows of text under headings, and a title where there are several tables."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""


@dataclass(frozen=True)
class Columns:
    """Texts side by side, each under its heading."""

    headings: tuple[str, ...]
    texts: tuple[str, ...]


def aligned_lines(table: Table) -> Iterator[str]:
    """The table as plain text, cleaned, its columns aligned; the headings are left out when all are empty."""
    rows = (table.headings, *table.rows) if any(table.headings) else table.rows
    rows = tuple(tuple(map(clean_line, row)) for row in rows)
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))] if rows else []
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
