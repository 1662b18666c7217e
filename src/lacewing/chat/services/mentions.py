"""Files that a message names: `@notes.txt`, `@code.py:10-50`, `@"a name with spaces.md"`. Their text goes below the message."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lacewing.errors import LacewingError, OptionError
from lacewing.formats.files import read_named
from lacewing.options import counted
from lacewing.paths import user_path

MAX_FILE_BYTES = 256 * 2**10  # of a mentioned file
MAX_MESSAGE_BYTES = 1 * 2**20  # of all files of a message

# Not after a word character: me@example.org mentions nothing.
_MENTION = re.compile(r"(?<![\w@./+-])@(?:\"([^\"\n]+)\"|([^\s\"@`]+))")
_WORDS = 15  # of a name with spaces, and the spaces between them
_RANGE = re.compile(r"(.+?):(\d{1,9})(?:-(\d{1,9}))?$")


class MentionError(LacewingError):
    """A mentioned file cannot be read; the message names it and says why."""


@dataclass(frozen=True)
class Expanded:
    """A message with the files that it mentions; `notes` say which were added and which stay text."""

    text: str
    notes: tuple[str, ...] = ()


def expand(message: str, folder: Path) -> Expanded:
    """The message, followed by the text of each file that it mentions; paths start at `folder`.

    What looks like a mention and names no file stays text; with a range or a folder in it, it is an error.
    Raises MentionError: too large, not text, not readable.
    """
    blocks: dict[str, str] = {}
    notes: list[str] = []
    for match in _MENTION.finditer(message):
        name, first, last = _parse(match, folder)
        if name is None:
            spaced = _with_spaces(message[match.start() + 1 :], folder)
            if spaced or "." in match[0][1:-1]:
                hint = f'; put a name with spaces in quotes: @"{spaced}"' if spaced else ""
                notes.append(f"{match[0]} is not a file here, sent as text{hint}")
            continue
        title = _title(name, first, last)
        if title not in blocks:
            blocks[title], note = _block(title, folder / user_path(name), first, last, name)
            notes.append(note)
    if sum(len(block.encode()) for block in blocks.values()) > MAX_MESSAGE_BYTES:
        raise MentionError(f"the mentioned files have more than {MAX_MESSAGE_BYTES // 2**20} MiB together")
    return Expanded("\n\n".join((message, *blocks.values())), tuple(notes))


def attach(text: str, folder: Path) -> Expanded:
    """A file, or lines of it (`notes.txt:10-50`), as a block for a message. Raises MentionError, also if there is no such file."""
    name, first, last = _named(text, folder) or (text, None, None)
    block, note = _block(_title(name, first, last), folder / user_path(name), first, last, name)
    return Expanded(block, (note,))


def _title(name: str, first: int | None, last: int | None) -> str:
    return name if first is None else f"{name}:{first}-{last}" if last != first else f"{name}:{first}"


def _block(title: str, path: Path, first: int | None, last: int | None, name: str) -> tuple[str, str]:
    """The text of a file in a fence, and a note about it."""
    block = _fenced(title, read_lines(path, first, last, name))
    return block, f"{title}: {counted(block.count(chr(10)) - 1, 'line')}"


def _parse(match: re.Match[str], folder: Path) -> tuple[str | None, int | None, int | None]:
    """The path of a mention and its first and last line; no path when it names no file and does not have to."""
    quoted, bare = match[1], match[2]
    for text in (quoted,) if quoted else (bare, bare.rstrip(".,;:!?)]}>'")):
        found = _named(text, folder)
        if found:
            return found
    if quoted or (("/" in bare or re.search(r":\d+-\d+", bare)) and not _with_spaces(match.string[match.start() + 1 :], folder)):
        raise MentionError(f"{match[0]}: there is no such file; without the @ it is sent as text")
    return None, None, None


def _with_spaces(text: str, folder: Path) -> str | None:
    """The file that the text begins with, where its name has spaces and is not in quotes."""
    words = re.split(r"( +)", text.split("\n")[0])[:_WORDS]
    starts = ("".join(words[:count]).rstrip(".,;:!?)]}>'") for count in range(3, len(words) + 1, 2))
    return next((start for start in starts if '"' not in start and _is_file(folder, start)), None)


def _named(text: str, folder: Path) -> tuple[str, int | None, int | None] | None:
    """The file that a text names, with its first and last line if it names lines."""
    if text and _is_file(folder, text):
        return text, None, None
    ranged = _RANGE.match(text)
    if ranged and _is_file(folder, ranged[1]):
        return ranged[1], int(ranged[2]), int(ranged[3] or ranged[2])
    return None


def _is_file(folder: Path, text: str) -> bool:
    try:
        return (folder / user_path(text)).is_file()
    except (OSError, OptionError):
        return False


def read_lines(path: Path, first: int | None = None, last: int | None = None, name: str | None = None) -> str:
    """The text of a file, or its lines `first` to `last`, counted from 1; `name` is what errors call it. Raises MentionError."""
    limit = MAX_FILE_BYTES + 1 if first is None else 64 * MAX_FILE_BYTES
    content = read_named(path, limit, MentionError, whole=False)
    if b"\0" in content:
        raise MentionError(f"{path} is not a text file")
    lines = content.decode("utf-8-sig", errors="replace").splitlines()
    if first is not None:
        _check_range(name or str(path), first, last or first, len(lines), len(content) == limit)
        lines = lines[first - 1 : last or first]
    text = "\n".join(lines)
    if len(text.encode()) > MAX_FILE_BYTES:
        raise MentionError(f"{path} has more than {MAX_FILE_BYTES // 2**10} KiB; mention some of its lines, for example :1-200")
    if text.count("\N{REPLACEMENT CHARACTER}") > 8 + len(text) // 100:
        raise MentionError(f"{path} is not UTF-8 text")
    return text


def _check_range(name: str, first: int, last: int, count: int, more: bool) -> None:
    """Raise MentionError unless some of the lines are there; `more`: the file has more than these `count` lines."""
    wanted = f"{first}-{last}" if last != first else f"{first}"
    if first < 1:
        raise MentionError(f"{name}:{wanted}: lines are counted from 1; write :1-{max(last, 1)}")
    if last < first:
        raise MentionError(f"{name}:{wanted}: the lines go backwards; write :{last}-{first}")
    if first > count and more:
        raise MentionError(f"{name}:{wanted}: only the first {counted(count, 'line')} of this large file can be mentioned")
    if first > count:
        there = f"the file has {counted(count, 'line')}; write :1-{count} or less" if count else "the file is empty"
        raise MentionError(f"{name}:{wanted}: {there}")


def _fenced(title: str, text: str) -> str:
    """A block that the text cannot end: its fence is longer than any run of backticks within."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence} {title}\n{text}\n{fence}"
