"""The line that a person writes: several lines, history, completion and the toolbar, on prompt-toolkit."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import Condition, has_focus
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.shortcuts import CompleteStyle
from prompt_toolkit.styles import Style

from lacewing.chat.commands.table import CommandTable
from lacewing.chat.terminal.completion import Source, candidates
from lacewing.console.interrupt import told_of_signals
from lacewing.console.output import clean, clean_line
from lacewing.options import user_folder

PROMPT, MORE = "> ", "  "
HISTORY_BYTES = 2**20  # of the history file; older lines are dropped at the start
LEAVES = "Ctrl-C again leaves, and so do /quit and Ctrl-D"
_STYLE = Style.from_dict({"prompt": "bold ansicyan", "bottom-toolbar": "noreverse ansibrightblack"})


class Editor:
    """Reads messages and commands. `toolbar` is asked at every drawing, `unfold` is called for Ctrl-O."""

    def __init__(
        self,
        table: CommandTable,
        sources: Mapping[str, Source],
        toolbar: Callable[[], str],
        unfold: Callable[[], None],
        say: Callable[[str], None],
        history: Path | None = None,
    ):
        self._say = say
        self._yes_or_no: PromptSession[str] | None = None
        self._prompt: PromptSession[str] = PromptSession(
            FormattedText([("class:prompt", PROMPT)]),
            multiline=True,
            prompt_continuation=MORE,
            completer=_Completer(table, sources),
            complete_in_thread=True,
            complete_style=CompleteStyle.COLUMN,
            complete_while_typing=Condition(self._writes_command),
            enable_history_search=Condition(lambda: not self._writes_command()),
            enable_open_in_editor=True,
            enable_suspend=True,
            tempfile_suffix=".md",
            key_bindings=_keys(unfold),
            history=_history(history),
            bottom_toolbar=lambda: FormattedText([("", clean_line(toolbar()))]),
            style=_STYLE,
        )

    def _writes_command(self) -> bool:
        return self._prompt.default_buffer.text.startswith("/")

    def read(self) -> str | None:
        """What was sent, or None to leave. Ctrl-C drops what is written; on an empty line, a second one leaves."""
        warned = False
        while True:
            try:
                return _prompted(self._prompt)
            except EOFError:
                return None
            except KeyboardInterrupt:
                if self._prompt.default_buffer.text:
                    warned = False
                elif warned:
                    return None
                else:
                    warned = True
                    self._say(LEAVES)

    def confirm(self, question: str) -> bool:
        """Yes or no; Ctrl-C and Ctrl-D are no."""
        self._yes_or_no = self._yes_or_no or PromptSession(history=InMemoryHistory())
        with contextlib.suppress(EOFError, KeyboardInterrupt):
            return _prompted(self._yes_or_no, f"{clean(question)} [y/N] ").strip().lower() in ("y", "yes")
        return False


def _prompted(session: PromptSession[str], message: str | None = None) -> str:
    """The line that a person writes. A signal that ends the program ends the line first; it is raised after the event loop."""
    ended: list[SystemExit] = []

    def leave() -> None:
        if ended and session.app.future is not None and not session.app.future.done():
            session.app.exit(exception=EOFError())

    def tell(error: SystemExit) -> None:
        ended.append(error)
        if session.app.loop is not None:
            session.app.loop.call_soon_threadsafe(leave)

    try:
        with told_of_signals(tell):
            return session.prompt(message, handle_sigint=False, pre_run=leave)
    finally:
        if ended:
            raise ended[0]


def _keys(unfold: Callable[[], None]) -> KeyBindings:
    keys = KeyBindings()
    writing = has_focus(DEFAULT_BUFFER)  # and not searching the history

    @keys.add("enter", filter=writing)
    def _send(event: KeyPressEvent) -> None:
        """Enter sends; in the menu of completions, it takes the chosen one."""
        buffer = event.current_buffer
        if buffer.complete_state and buffer.complete_state.current_completion:
            buffer.complete_state = None
        elif buffer.text.strip():
            buffer.validate_and_handle()

    @keys.add("escape", "enter", filter=writing)
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    @keys.add("c-o")
    def _unfold(event: KeyPressEvent) -> None:
        run_in_terminal(unfold)

    return keys


class _Completer(Completer):
    def __init__(self, table: CommandTable, sources: Mapping[str, Source]):
        self._table, self._sources = table, sources

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        for one in candidates(document.text_before_cursor, self._table, self._sources):
            yield Completion(one.text, -one.length, display=clean_line(one.text), display_meta=clean_line(one.about))


class _CarefulHistory(FileHistory):
    """A disk that is full costs the history, not the conversation."""

    def store_string(self, string: str) -> None:
        with contextlib.suppress(OSError):
            super().store_string(string)

    def load_history_strings(self) -> Iterable[str]:
        try:
            return list(super().load_history_strings())
        except OSError:
            return []


def _history(path: Path | None) -> History:
    """The history of this person, in a file that only they can read; without one when it cannot be written."""
    if path is None:
        return InMemoryHistory()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600))
        _shorten(path)
    except OSError:
        return InMemoryHistory()
    return _CarefulHistory(str(path))


def _shorten(path: Path) -> None:
    """Keep the newer half of a history that has grown too long; its entries are parted by empty lines."""
    if path.stat().st_size > HISTORY_BYTES:
        newer = path.read_bytes()[-HISTORY_BYTES // 2 :]
        path.write_bytes(newer[newer.find(b"\n\n") + 1 :])


def history_path() -> Path:
    """Where the history of this person is."""
    return user_folder("state") / "history"
