"""The line that a person writes: several lines, history, completion and the toolbar, on prompt-toolkit."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.buffer import Buffer
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
from lacewing.errors import LacewingError
from lacewing.paths import user_folder

PROMPT, MORE = "> ", "  "
HISTORY_BYTES = 2**20  # of the history file; older lines are dropped at the start
LEAVES = "Ctrl-C again leaves, and so do /quit and Ctrl-D"
_STYLE = Style.from_dict({"prompt": "bold ansicyan", "bottom-toolbar": "noreverse ansibrightblack"})


class Editor:
    """Reads messages and commands.

    `toolbar` is asked at every drawing, `unfold` is called for Ctrl-O; `edit` changes a text in $EDITOR, None for unchanged.
    """

    def __init__(
        self,
        table: CommandTable,
        sources: Mapping[str, Source],
        toolbar: Callable[[], str],
        unfold: Callable[[], None],
        say: Callable[[str], None],
        edit: Callable[[str], str | None] = lambda text: None,
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
            enable_suspend=True,
            key_bindings=_keys(unfold, edit, say),
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


def _keys(unfold: Callable[[], None], edit: Callable[[str], str | None], say: Callable[[str], None]) -> KeyBindings:
    keys = KeyBindings()
    writing = has_focus(DEFAULT_BUFFER)  # and not searching the history

    @keys.add("enter", filter=writing)
    def _send(event: KeyPressEvent) -> None:
        """Enter sends; in the menu of several completions, it takes the chosen one."""
        buffer = event.current_buffer
        state = buffer.complete_state
        if state and state.current_completion and (len(state.completions) > 1 or buffer.text.endswith("/")):
            buffer.complete_state = None
        elif buffer.text.strip():
            buffer.validate_and_handle()

    @keys.add("escape", "enter", filter=writing)
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    @keys.add("tab", filter=writing)
    def _complete(event: KeyPressEvent) -> None:
        _next_completion(event.current_buffer, 1)

    @keys.add("s-tab", filter=writing)
    def _complete_back(event: KeyPressEvent) -> None:
        _next_completion(event.current_buffer, -1)

    @keys.add("c-x", "c-e", filter=writing)
    def _open_editor(event: KeyPressEvent) -> None:
        """What is written, in $EDITOR; it is sent when it was changed there."""
        buffer = event.current_buffer

        async def work() -> None:
            try:
                text = await run_in_terminal(lambda: edit(buffer.text))
            except LacewingError as error:
                say(str(error))
                return
            if text is not None and text.strip():
                text = text.rstrip("\n")
                buffer.document = Document(text, len(text))
                buffer.validate_and_handle()

        event.app.create_background_task(work())

    @keys.add("c-o")
    def _unfold(event: KeyPressEvent) -> None:
        run_in_terminal(unfold)

    return keys


def _next_completion(buffer: Buffer, step: int) -> None:
    """Complete; of several completions, cycle; behind the only one, complete what follows it. What stands there is never undone."""
    state = buffer.complete_state
    if state is None or not state.completions:
        buffer.start_completion(insert_common_part=True)
    elif len(state.completions) == 1 and state.complete_index == 0:
        buffer.complete_state = None
        buffer.start_completion(insert_common_part=True)
    else:
        index = -1 if state.complete_index is None and step > 0 else state.complete_index or 0
        buffer.go_to_completion((index + step) % len(state.completions))


class _Completer(Completer):
    def __init__(self, table: CommandTable, sources: Mapping[str, Source]):
        self._table, self._sources = table, sources

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        for one in candidates(document.text_before_cursor, self._table, self._sources):
            yield Completion(one.text, -one.length, display=clean_line(one.name or one.text), display_meta=clean_line(one.about))


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
