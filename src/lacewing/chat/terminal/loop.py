"""The conversation: a line, what it does, the next line. The same for a terminal and for a pipe."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Protocol

from lacewing.chat.commands.table import Reply, is_command, run_line, without_mark
from lacewing.chat.services import autosave
from lacewing.chat.services.mentions import expand
from lacewing.chat.session.conversation import Conversation
from lacewing.chat.session.events import Delta, Event, Finished
from lacewing.console.interrupt import Interrupt, ended_by_signals, ignore_sigint
from lacewing.errors import Cancelled, LacewingError
from lacewing.options import counted


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
    """Runs until the input ends. Ctrl-C stops the work of a line, a second one leaves the chat.

    `failed`: whether a line failed. `patience`: of `Interrupt`.
    """

    def __init__(self, session: Conversation, view: TerminalView, patience: float = 0.0):
        self.session, self.view, self._patience = session, view, patience
        self.failed = False
        self._interrupt = Interrupt()
        session.ui.cancelled = self._is_cancelled
        session.autosave = self._autosave

    def _is_cancelled(self) -> bool:
        return self._interrupt()

    def run(self) -> int:
        """The exit code. A conversation that is not saved is saved first."""
        try:
            for name in autosave.recover():
                self.view.note(f"a chat ended in the middle of an answer: /load {name} loads it")
        except LacewingError as error:
            self.view.note(f"conversations cannot be kept: {error}")
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
        return 1 if self.failed and not self.session.ui.interactive else 0

    def _autosave(self) -> None:
        """Save what is lost if a driver ends the process; if that fails, the answer is made anyway."""
        try:
            autosave.autosave(self.session)
        except LacewingError as error:
            self.view.note(f"the conversation cannot be saved while it is answered: {error}")
            self.session.autosave = lambda: None  # once is enough

    def _save(self, save: Callable[[Conversation], str | None]) -> None:
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
        before = len(self.session.messages)
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
        if not is_command(line) and len(self.session.messages) == before:
            self.view.note(self._taken_back())
        return True

    def _taken_back(self) -> str:
        """What became of a message that was not answered, and of the files that were to go with it."""
        count = len(self.session.attachments)
        files = f"; {counted(count, 'attached file')} will go with the next one" if count else ""
        return f"your message was taken back{' (the Up key brings it back)' if self.session.ui.interactive else ''}{files}"

    def _command(self, line: str) -> bool:
        reply = run_line(self.session, line)
        self.view.show(reply)
        if reply.stream is not None:
            self._answer(reply.stream)
        return reply.then != "quit"

    def _message(self, line: str) -> bool:
        text = without_mark(line)
        text = text.lstrip()[1:] if text.lstrip().startswith("//") else text
        expanded = expand(text, Path.cwd())
        for note in expanded.notes:
            self.view.note(note)
        self._answer(self.session.say(expanded.text), self._taken_back)
        return True

    def _answer(self, events: Iterator[Event], unanswered: Callable[[], str] = lambda: "nothing was changed") -> None:
        """Show it. `unanswered`: what cancelling it before it began came to."""
        ends: list[Finished] = []
        began: list[Delta] = []
        with contextlib.closing(_watched(events, ends, began)) as watched:
            settings = self.session.settings
            self.view.answer(watched, unfolded=settings.show_reasoning, plain=settings.plain)
        if ends and ends[0].reason == "cancelled" and not began:
            self.view.note(f"cancelled before the answer began; {unanswered()}")
        elif ends:
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


def _watched(events: Iterator[Event], ends: list[Finished], began: list[Delta]) -> Generator[Event, None, None]:
    """The events; the last is put into `ends`, the first piece of the answer into `began`."""
    try:
        for event in events:
            if isinstance(event, Finished):
                ends.append(event)
            elif isinstance(event, Delta) and not began:
                began.append(event)
            yield event
    finally:  # a reader that fails ends the answer now, not when its traceback has gone
        if isinstance(events, Generator):
            events.close()


def _place_of(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
