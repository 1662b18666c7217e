"""The conversation: a line, what it does, the next line. The same for a terminal and for a pipe."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Protocol

from lacewing.chat.commands.table import Reply, is_command, run_line
from lacewing.chat.services import autosave
from lacewing.chat.services.mentions import expand
from lacewing.chat.session.events import Event, Finished
from lacewing.chat.session.session import Session
from lacewing.console.interrupt import Interrupt, ended_by_signals, ignore_sigint
from lacewing.errors import Cancelled, LacewingError


class TerminalView(Protocol):
    """Shows a session and reads lines for it."""

    def read(self) -> str | None: ...
    def show(self, reply: Reply) -> None: ...
    def answer(self, events: Iterator[Event], *, unfolded: bool = False, plain: bool = False) -> None: ...
    def ended(self, reason: str) -> None: ...
    def note(self, text: str) -> None: ...
    def problem(self, text: str) -> None: ...
    def busy(self, cancelled: Callable[[], bool]) -> None: ...
    def idle(self) -> None: ...


class Loop:
    """Runs until the input ends. `failed`: whether a line failed. Ctrl-C stops the work of a line, a second one leaves the chat.

    `patience`: of `Interrupt`.
    """

    def __init__(self, session: Session, view: TerminalView, patience: float = 0.0):
        self.session, self.view, self._patience = session, view, patience
        self.failed = False
        self._interrupt = Interrupt()
        session.ui.cancelled = self._is_cancelled
        session.autosave = self._autosave

    def _is_cancelled(self) -> bool:
        return self._interrupt()

    def run(self) -> int:
        """The exit code. A conversation that is not saved is saved first."""
        for name in autosave.recover():
            self.view.note(f"a chat ended in the middle of an answer: /load {name} loads it")
        self._tell_notices()
        try:
            with ended_by_signals():
                while (line := self.view.read()) is not None and self._turn(line):
                    pass
        except BaseException:
            with ignore_sigint():
                self._save(autosave.rescue)
            raise
        self._save(autosave.leave)
        return 1 if self.failed else 0

    def _autosave(self) -> None:
        """Save what is lost if a driver ends the process; if that fails, the answer is made anyway."""
        try:
            autosave.autosave(self.session)
        except LacewingError as error:
            self.view.note(f"the conversation cannot be saved while it is answered: {error}")
            self.session.autosave = lambda: None  # once is enough

    def _save(self, save: Callable[[Session], str | None]) -> None:
        try:
            text = save(self.session)
            autosave.clean_up()
        except LacewingError as error:
            self.failed = True
            text = f"the conversation could not be saved: {error}"
        with contextlib.suppress(OSError):  # the terminal may be gone
            if text:
                self.view.note(text)

    def _turn(self, line: str) -> bool:
        """Whether to continue."""
        self._interrupt = Interrupt(self._patience)
        with self._interrupt:
            self.view.busy(self._is_cancelled)
            try:
                return self._work(line)
            finally:
                self.view.idle()
                self._tell_notices()

    def _work(self, line: str) -> bool:
        try:
            return self._command(line) if is_command(line) else self._message(line)
        except Cancelled:
            self.view.note("cancelled; nothing was changed")
        except BrokenPipeError:
            raise  # the reader of our output is gone
        except (LacewingError, OSError, MemoryError) as error:
            self.failed = True
            self.view.problem(str(error) or type(error).__name__)
        except Exception as error:  # a fault of ours ends the line, not the conversation
            self.failed = True
            self.view.problem(f"a bug in Lacewing, please report it: {_place_of(error)}; the conversation is kept, /save saves it")
        return True

    def _command(self, line: str) -> bool:
        reply = run_line(self.session, line)
        self.view.show(reply)
        if reply.stream is not None:
            self._answer(reply.stream)
        if reply.then == "answer":
            self._answer(self.session.answer())
        return reply.then != "quit"

    def _message(self, line: str) -> bool:
        text = line[1:] if line.startswith("//") else line
        expanded = expand(text, Path.cwd())
        for note in expanded.notes:
            self.view.note(note)
        self._answer(self.session.say(expanded.text))
        return True

    def _answer(self, events: Iterator[Event]) -> None:
        ends: list[Finished] = []
        with contextlib.closing(_watched(events, ends)) as watched:
            settings = self.session.settings
            self.view.answer(watched, unfolded=settings.show_reasoning, plain=settings.plain)
        if ends:
            self.view.ended(ends[0].reason)
        if self.session.settings.code:
            self._tell_edits()

    def _tell_edits(self) -> None:
        from lacewing.chat.commands.code import proposed

        edits, problems = proposed(self.session)
        names = ", ".join(dict.fromkeys(edit.path for edit in edits))
        if edits:
            self.view.note(f"edits of {names}: /diff shows them, /apply asks about each, /discard drops them")
        for problem in problems:
            self.view.note(problem)

    def _tell_notices(self) -> None:
        for notice in self.session.notices:
            self.view.note(notice)
        self.session.notices.clear()


def _watched(events: Iterator[Event], ends: list[Finished]) -> Generator[Event, None, None]:
    try:
        for event in events:
            if isinstance(event, Finished):
                ends.append(event)
            yield event
    finally:  # a reader that fails ends the answer now, not when its traceback has gone
        if isinstance(events, Generator):
            events.close()


def _place_of(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
