"""What a person wants answered: words of the command line, texts of files, and the text on standard input in front of both."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lacewing import hub
from lacewing.chat.services.mentions import attach
from lacewing.cli.models import names_model
from lacewing.console.output import detail, notice
from lacewing.errors import OptionError
from lacewing.options import counted, did_you_mean
from lacewing.paths import user_path

MAX_STDIN_BYTES = 4 << 20
PATIENCE = 1.0  # seconds in which somebody who gave us a pipe of theirs begins to write into it
STDIN = "-"  # as the name of a file


@dataclass(frozen=True)
class Request:
    """What a command line asks of a model. `load`: the name of a saved conversation; of a chat only."""

    model: str
    prompt: str
    files: tuple[str, ...] = ()
    system: str | None = None
    template: str | None = None
    load: str | None = None

    @classmethod
    def of(
        cls,
        words: Sequence[str],
        model: str | None,
        default: str,
        files: Sequence[str],
        system: str | None,
        template: str | None,
    ) -> Request:
        """The first word is the model, unless that is given as an option, or all there is reads as a prompt. Raises OptionError."""
        prompt = " ".join(words)
        if model is None:
            model = default
            if words and (len(words) > 1 or _may_be_model(words[0])):
                model, prompt = words[0], " ".join(words[1:])
            elif words and not any(map(str.isspace, prompt)):
                hint = did_you_mean(prompt, hub.known_names()) or "`lacewing list` shows the models"
                raise OptionError(f"there is no model {prompt!r}; {hint} (as a prompt: lacewing run -m {default} {prompt!r})")
        return cls(model, prompt, tuple(files), system, template)

    def text(self) -> str:
        """Standard input, files and prompt, with an empty line between them; "" if there is nothing. Raises LacewingError."""
        wait = STDIN in self.files or not (self.prompt or self.files)
        return "\n\n".join(part for part in (standard_input(wait=wait), *self.blocks(), self.prompt) if part)

    def blocks(self) -> list[str]:
        """Each file with its name, as a chat's @file; `notes.txt:10-50` are lines of it. Raises MentionError."""
        return [attach(file, Path()).text for file in self.files if file != STDIN]


def _may_be_model(word: str) -> bool:
    try:
        return names_model(word) or user_path(word).exists() or (os.sep in word and not any(map(str.isspace, word)))
    except OptionError:
        return False


def standard_input(*, wait: bool) -> str:
    """The text that somebody pipes in, without its last line end; "" from a terminal, a closed stream or an empty one.

    A pipe or socket that a parent process left open may stay silent for ever. It is given PATIENCE seconds, unless `wait`, or
    unless another process, as in `producer | lacewing run`, can write to it. Raises OptionError for what is no text.
    """
    try:
        number = sys.stdin.fileno()
        mode = os.fstat(number).st_mode
    except (OSError, ValueError):  # closed, or no file
        return _text(_replaced())
    if sys.stdin.isatty():
        return ""
    reader = _Reader(number)
    reader.start()
    slow = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
    if not reader.begun.wait(PATIENCE if slow else None):
        if not wait and not _is_fed(number):
            detail(f"standard input sent nothing in {PATIENCE:.0f} s, so it is not read; --file - waits for it")
            return ""
        notice("waiting for the text on standard input")
    reader.join()
    return _text(bytes(reader.data))


class _Reader(threading.Thread):
    """Reads standard input past Python's own buffer, which a thread that waits would lock when the program ends."""

    def __init__(self, number: int):
        super().__init__(daemon=True)
        self.number, self.data, self.begun = number, bytearray(), threading.Event()

    def run(self) -> None:
        with contextlib.suppress(OSError):  # cannot be read: the same as nothing
            while len(self.data) <= MAX_STDIN_BYTES and (block := os.read(self.number, 1 << 16)):
                self.data += block
                self.begun.set()
        self.begun.set()


def _replaced() -> bytes:
    """Of a stream that a program put in the place of standard input."""
    try:
        return str(sys.stdin.read(MAX_STDIN_BYTES + 1)).encode()
    except (OSError, ValueError):
        return b""


def _is_fed(number: int) -> bool:
    """Whether a process that is not an ancestor of ours can write to this pipe: Linux tells. Elsewhere, whether a person waits."""
    if not os.path.isdir("/proc/self/fd"):
        return sys.stderr.isatty()
    pipe = os.fstat(number)
    own = {str(os.getpid()), *_ancestors()}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for link in (process / "fd").iterdir() if process.name not in own else ():
                with contextlib.suppress(OSError):
                    found = link.stat()
                    if (found.st_dev, found.st_ino) == (pipe.st_dev, pipe.st_ino) and link.lstat().st_mode & stat.S_IWUSR:
                        return True
    return False


def _ancestors() -> Iterator[str]:
    """The ids of the processes that started us, the nearest first."""
    process = str(os.getppid())
    with contextlib.suppress(OSError):
        while process != "0":
            yield process
            process = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[1]


def _text(data: bytes) -> str:
    """Raises OptionError for what is too long or no text."""
    if len(data) > MAX_STDIN_BYTES:
        raise OptionError(f"standard input has more than {MAX_STDIN_BYTES >> 20} MiB of text; send less, or parts of it")
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")  # as some programs of Windows write
    text = data.decode("utf-16" if wide else "utf-8-sig", errors="replace")
    strange = text.count("\N{REPLACEMENT CHARACTER}")
    if "\0" in text or strange > 8 + len(text) // 100:
        raise OptionError("standard input is not UTF-8 text; convert it first, for example with iconv")
    if strange:
        notice(f"standard input has {counted(strange, 'place')} that are not UTF-8; the model sees \N{REPLACEMENT CHARACTER} there")
    return text.removesuffix("\n").removesuffix("\r") if text.strip() else ""
