"""A session on a terminal: the editor, streamed Markdown, bars, questions."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from lacewing.backends import known_backends
from lacewing.chat.commands.table import CommandTable, Reply, load_commands
from lacewing.chat.services import files, opening
from lacewing.chat.session.conversation import Conversation
from lacewing.chat.session.events import Event, Ui
from lacewing.chat.session.remote import RemoteSession
from lacewing.chat.session.session import Session
from lacewing.chat.terminal import programs
from lacewing.chat.terminal.answer import AnswerView, dimmed
from lacewing.chat.terminal.below import heat_lines, toolbar_line
from lacewing.chat.terminal.completion import Source
from lacewing.chat.terminal.plain import ENDS
from lacewing.chat.terminal.progress import Bars
from lacewing.chat.terminal.replies import renderables
from lacewing.console.interrupt import ignore_sigint
from lacewing.console.output import clean
from lacewing.options import RESIDENCIES, spelled
from lacewing.text.template import NAMES

_ENDS = {
    "length": "the answer reached its length limit; /continue continues it",
    "cancelled": "stopped; /continue continues it",
    "repetition": ENDS["repetition"],
}


class ScreenView:
    """Standard output is a terminal, and so is standard input."""

    def __init__(
        self,
        table: CommandTable,
        sources: Mapping[str, Source],
        toolbar: Callable[[int], str],
        bars: Bars,
        history: Path | None,
        below: Callable[[Console], list[str]] = lambda console: [],
    ):
        from lacewing.chat.terminal.editor import Editor

        self._console = Console(highlight=False, soft_wrap=False)
        self._bars, self._below = bars, below
        self._thoughts = ""
        self._echo: Any = None
        line = lambda: toolbar(self._console.width - 1)  # noqa: E731
        self._editor = Editor(table, sources, line, self._unfold, self.note, programs.edit, history)

    def read(self) -> str | None:
        with ignore_sigint():  # here Ctrl-C is a key; one that comes just after an answer has ended means that answer
            return self._editor.read()

    def ui(self) -> Ui:
        return Ui(progress=self._bars, confirm=self._confirm, interactive=True, edit=self._edit, copy=self._copy)

    def show(self, reply: Reply) -> None:
        with self._bars.paused():
            for content in renderables(reply):
                self._console.print(content)

    def answer(self, events: Iterator[Event], *, unfolded: bool = False, plain: bool = False) -> None:
        """Stream it. Bars of the prompt's reading go when the first piece comes."""
        view = AnswerView(self._console, unfolded=unfolded, plain=plain, below=lambda: self._below(self._console))
        try:
            with self._bars.paused():
                view.show(self._between_bars(events))
        finally:
            self._thoughts = view.thoughts or self._thoughts
            self._console.print()

    def _between_bars(self, events: Iterator[Event]) -> Iterator[Event]:
        """Bars are shown only while waiting for the next event."""
        while True:
            with self._bars.resumed():
                event = next(events, None)
            if event is None:
                return
            yield event

    def ended(self, reason: str) -> None:
        if reason in _ENDS:
            self.note(_ENDS[reason])

    def note(self, text: str) -> None:
        with self._bars.paused():
            self._console.print(Text(clean(spelled(text, chat=True)), style="dim"))

    def problem(self, text: str) -> None:
        with self._bars.paused():
            self._console.print(Text(clean(spelled(text, chat=True)), style="red"))

    def busy(self, cancelled: Callable[[], bool]) -> None:
        """What is typed while the model works is not echoed into its answer; it waits for the editor."""
        self._bars.watch(cancelled)
        with contextlib.suppress(ImportError, OSError, ValueError):
            import termios

            before = termios.tcgetattr(sys.stdin)
            quiet = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
            termios.tcsetattr(sys.stdin, termios.TCSANOW, quiet)
            self._echo = before

    def idle(self) -> None:
        self._bars.unwatch()
        if self._echo is not None:
            import termios

            termios.tcsetattr(sys.stdin, termios.TCSANOW, self._echo)
            self._echo = None

    def _confirm(self, question: str) -> bool:
        """The lines above the last one of a question are a diff."""
        about, _, question = question.rpartition("\n")
        if about:
            self.show(Reply(about, kind="diff"))
        with self._bars.paused():
            return self._editor.confirm(question)

    def _unfold(self) -> None:
        """The thoughts of the last answer."""
        print("\n".join(dimmed(self._console, self._thoughts or "There are no thoughts to show.")))

    def _edit(self, text: str) -> str | None:
        self.idle()
        try:
            return programs.edit(text)
        finally:
            self.busy(self._bars.cancelled)

    def _copy(self, text: str) -> str:
        return programs.copy(text, sys.stdout)


def open_screen(session: Conversation, bars: Bars) -> ScreenView:
    """The view of a session on this terminal."""
    from lacewing.chat.terminal.editor import history_path

    sources: dict[str, Source] = {
        "model": lambda: opening.model_names(session) if isinstance(session, Session) else (),
        "served": lambda: [each["id"] for each in session.listed] if isinstance(session, RemoteSession) else (),
        "template": lambda: NAMES if isinstance(session, Session) else (),
        "session": files.names,
        "backend": known_backends,
        "residency": lambda: RESIDENCIES,
    }
    below = lambda console: heat_lines(session, console)  # noqa: E731
    return ScreenView(
        load_commands(type(session)), sources, lambda width: toolbar_line(session.status(), width), bars, history_path(), below
    )
