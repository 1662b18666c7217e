"""Edits that a model proposes: SEARCH/REPLACE blocks of its answer, and where they fit a text. Pure; no file is touched.

A block stands below the path of its file, in a code fence or not:

    path/to/file.py
    <<<<<<< SEARCH
    lines as they are
    =======
    lines as they shall be
    >>>>>>> REPLACE

An empty SEARCH makes a new file. Several blocks may follow one path. `EDIT_INSTRUCTIONS` of `session.settings` tell the model so.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lacewing.errors import LacewingError
from lacewing.options import counted

MAX_EDITS = 200  # of one answer
_SEARCH, _DIVIDER, _REPLACE = (re.compile(mark + r"\s*$") for mark in ("<{5,9} SEARCH", "={7}", ">{5,9} REPLACE"))
_FENCE = re.compile(r"\s*(`{3,}|~{3,})")


class EditError(LacewingError):
    """A proposed edit cannot be made; the message names the file and says why."""


@dataclass(frozen=True)
class Edit:
    """One block: in the file `path`, `search` becomes `replace`; both are whole lines."""

    path: str
    search: tuple[str, ...]
    replace: tuple[str, ...]


@dataclass(frozen=True)
class DiffLine:
    """A line of a unified diff; `kind` is "head", "same", "add" or "remove"."""

    kind: str
    text: str


def parse_edits(answer: str) -> tuple[list[Edit], list[str]]:
    """The edits of an answer in their order, and what is wrong with blocks that cannot be read."""
    lines, edits, problems = answer.replace("\r\n", "\n").split("\n"), [], []
    at, path = 0, ""
    while at < len(lines):
        if not _SEARCH.match(lines[at]):
            at += 1
            continue
        path = _path_above(lines, at) or path
        end = next((row for row in range(at + 1, len(lines)) if _REPLACE.match(lines[row]) or _SEARCH.match(lines[row])), None)
        if end is None or _SEARCH.match(lines[end]):
            problems.append(f"the block at line {at + 1} of the answer has no end (>>>>>>> REPLACE)")
            at = len(lines) if end is None else end
            continue
        dividers = [row for row in range(at + 1, end) if _DIVIDER.match(lines[row])]
        if len(dividers) != 1:
            problems.append(
                f"the block at line {at + 1} of the answer has {counted(len(dividers), 'divider')} (=======); it must have one"
            )
        elif not path:
            problems.append(f"the block at line {at + 1} of the answer names no file above it")
        else:
            edits.append(Edit(path, tuple(lines[at + 1 : dividers[0]]), tuple(lines[dividers[0] + 1 : end])))
        at = end + 1
    if len(edits) > MAX_EDITS:
        raise EditError(f"the answer has {len(edits)} edits; at most {MAX_EDITS} are taken")
    return edits, problems


def _path_above(lines: Sequence[str], at: int) -> str:
    """The path named just above a block, or nothing: the line above, or the one above its opening fence."""
    above = [line for line in lines[max(0, at - 3) : at] if line.strip()]
    while above and _FENCE.match(above[-1]):
        above.pop()
    if not above or _REPLACE.match(above[-1]):
        return ""
    text = above[-1].strip()
    quoted = re.search(r"`([^`]+)`", text)
    if quoted:
        return quoted[1].strip()
    text = re.sub(r"^[#>*\s]*(?:file(?:name)?\s*:)?\s*", "", text, flags=re.IGNORECASE).strip("*:\"' ")
    return text if re.fullmatch(r"\S*[\w]\S*", text) else ""


def replace_once(text: str, edit: Edit) -> str:
    """`text` with the edit made. Lines may differ from SEARCH in white space at their ends, or in a common indentation.

    Raises EditError when they are nowhere, or in several places: guessing would change what nobody looked at.
    """
    lines = text.split("\n")
    if not any(line.strip() for line in edit.search):
        if text.strip():
            raise EditError(f"{edit.path}: SEARCH is empty, but the file exists and has text")
        return "\n".join((*edit.replace, "")) if edit.replace else ""
    for same in (_exactly, _ignoring_ends, _shifted):
        places = list(_places(lines, edit.search, same))
        if len(places) > 1:
            found = ", ".join(str(start + 1) for start, _ in places[:5])
            raise EditError(f"{edit.path}: SEARCH fits in {len(places)} places (lines {found}); add lines to make it unique")
        if places:
            start, shift = places[0]
            return "\n".join((*lines[:start], *(shift(line) for line in edit.replace), *lines[start + len(edit.search) :]))
    raise EditError(f"{edit.path}: SEARCH is not in the file{_nearest(lines, edit.search)}")


_Shift = Callable[[str], str]


def _places(
    lines: Sequence[str], wanted: Sequence[str], same: Callable[[Sequence[str], Sequence[str]], _Shift | None]
) -> Iterator[tuple[int, _Shift]]:
    first = wanted[0].strip()
    for start in range(len(lines) - len(wanted) + 1):
        if lines[start].strip() == first:
            shift = same(lines[start : start + len(wanted)], wanted)
            if shift is not None:
                yield start, shift


def _keep(line: str) -> str:
    return line


def _exactly(here: Sequence[str], wanted: Sequence[str]) -> _Shift | None:
    return _keep if list(here) == list(wanted) else None


def _ignoring_ends(here: Sequence[str], wanted: Sequence[str]) -> _Shift | None:
    return _keep if all(a.rstrip() == b.rstrip() for a, b in zip(here, wanted, strict=True)) else None


def _shifted(here: Sequence[str], wanted: Sequence[str]) -> _Shift | None:
    """Equal but for one indentation, which the file has more, or less, on every line."""
    if any(a.strip() != b.strip() for a, b in zip(here, wanted, strict=True)):
        return None
    pairs = {(_indent(a), _indent(b)) for a, b in zip(here, wanted, strict=True) if a.strip()}
    more = {a[: len(a) - len(b)] if a.endswith(b) else None for a, b in pairs}
    if len(more) == 1 and None not in more:
        extra = more.pop() or ""
        return lambda line: extra + line if line.strip() else line
    less = {b[: len(b) - len(a)] if b.endswith(a) else None for a, b in pairs}
    if len(less) == 1 and None not in less:
        surplus = less.pop() or ""
        return lambda line: line.removeprefix(surplus)
    return None


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _nearest(lines: Sequence[str], wanted: Sequence[str]) -> str:
    """A hint: the line most like the first one that counts."""
    first = next(line.strip() for line in wanted if line.strip())[:200]
    close = difflib.get_close_matches(first, [line.strip()[:200] for line in lines[:2000]], 1, 0.6)
    if not close:
        return ""
    row = next(row for row, line in enumerate(lines) if line.strip()[:200] == close[0])
    return f"; the nearest line is {row + 1}: {close[0]!r}"


def diff(name: str, before: str | None, after: str) -> list[DiffLine]:
    """The change of one file as a unified diff; `before` is None for a new file."""
    old = "/dev/null" if before is None else name
    kinds = {"+": "add", "-": "remove", " ": "same", "@": "head"}
    rows = difflib.unified_diff((before or "").splitlines(), after.splitlines(), old, name, lineterm="")
    return [DiffLine("head" if row < 2 else kinds.get(line[:1], "same"), line) for row, line in enumerate(rows)]
