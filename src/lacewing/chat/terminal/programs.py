"""What the chat asks other programs for: a text changed in $EDITOR, and a text put on the clipboard."""

from __future__ import annotations

import base64
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TextIO

from lacewing.console.interrupt import ignore_sigint
from lacewing.errors import OptionError

MAX_OSC_BYTES = 74_000  # terminals drop longer sequences
_INSTALL = "install wl-copy, xclip or xsel"
_PROGRAMS = (
    ("WAYLAND_DISPLAY", ("wl-copy",)),
    ("DISPLAY", ("xclip", "-selection", "clipboard")),
    ("DISPLAY", ("xsel", "--clipboard", "--input")),
    ("TMUX", ("tmux", "load-buffer", "-w", "-")),
)
_IN_TMUX = "tmux has it, and was asked to pass it on to its terminal, which does not tell whether it took it"


def edit(text: str) -> str | None:
    """The text as $VISUAL or $EDITOR leaves it; None if it was not changed. Raises OptionError if the editor fails."""
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ("notepad" if os.name == "nt" else "vi")
    with tempfile.TemporaryDirectory(prefix="lacewing-") as folder:
        file = Path(folder) / "message.md"
        file.write_text(text, encoding="utf-8")
        try:
            with ignore_sigint():  # it is the editor's
                code = subprocess.call([*shlex.split(command, posix=os.name != "nt"), str(file)])
        except (OSError, ValueError) as error:
            raise OptionError(f"the editor {command!r} cannot be started: {error}; set EDITOR") from None
        changed = file.read_text(encoding="utf-8", errors="replace")
    if code:
        raise OptionError(f"the editor {command!r} ended with code {code}; nothing was changed or sent")
    return None if changed.rstrip("\n") == text.rstrip("\n") else changed


def copy(text: str, terminal: TextIO) -> str:
    """Put a text on the clipboard: through the system's own program, else by asking the terminal (OSC 52), which works over SSH.

    Returns what a person should know if it is not certain that the text is there, else "". Raises OptionError if it cannot be.
    """
    for program in _programs():
        try:
            subprocess.run(
                program, input=text.encode(), check=True, timeout=5, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            return _IN_TMUX if program[0] == "tmux" else ""
        except (OSError, subprocess.SubprocessError):
            continue
    if os.environ.get("TERM", "").startswith(("linux", "dumb")):
        raise OptionError("this terminal has no clipboard; nothing was copied")
    encoded = base64.b64encode(text.encode()).decode()
    if len(encoded) > MAX_OSC_BYTES:
        raise OptionError(f"the text is too long for the terminal's clipboard; nothing was copied: {_INSTALL}")
    terminal.write(f"\x1b]52;c;{encoded}\x07")
    terminal.flush()
    return f"the terminal was asked to take it, and does not tell whether it did; if a paste shows something else, {_INSTALL}"


def _programs() -> list[tuple[str, ...]]:
    if sys.platform == "darwin":
        return [("pbcopy",)]
    if os.name == "nt":
        return [("clip",)]
    return [program for variable, program in _PROGRAMS if os.environ.get(variable) and shutil.which(program[0])]
