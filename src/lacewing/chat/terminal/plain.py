"""A session in a pipe: lines in, plain text out. No colours, no bars, no questions but those that the next line answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TextIO

from lacewing.chat.commands.table import Reply, without_mark
from lacewing.chat.session.events import Delta, Event, Notice, Ui
from lacewing.chat.terminal.replies import plain_lines
from lacewing.console.output import Output, clean, print_text
from lacewing.options import spelled

ENDS = {"cancelled": "stopped", "repetition": "the answer repeated itself and was ended; /repeat-guard off lets it go on"}
QUOTES = '"""'  # each on a line of its own: the lines between two of them are one message


class PlainView:
    """Answers go to `out`, all else to `problems`; if both ends are a terminal, a person sees it all there, and a prompt."""

    def __init__(self, source: TextIO, out: TextIO, problems: TextIO):
        self._source, self._problems = source, problems
        self._output = Output(out)
        self.interactive = source.isatty() and out.isatty()
        self._about = self._output if self.interactive else Output(problems)

    def read(self) -> str | None:
        """The next message or command; empty lines are passed over. None at the end."""
        while True:
            line = self._line("> ")
            if line is None:
                return None
            if line.strip() == QUOTES:
                return self._quoted()
            if line.strip():
                return line.strip()

    def _line(self, prompt: str) -> str | None:
        if self.interactive:
            self._output.write(prompt)
        line = without_mark(self._source.readline())
        return line.rstrip("\r\n") if line else None

    def _quoted(self) -> str:
        lines: list[str] = []
        while (line := self._line("  ")) is not None and line.strip() != QUOTES:
            lines.append(line)
        return "\n".join(lines)

    def ui(self) -> Ui:
        return Ui(confirm=self._confirm, interactive=self.interactive)

    def _confirm(self, question: str) -> bool:
        """The next line answers."""
        self._output.end_line()
        self._about.write(f"{clean(question)} [y/N] ")
        answer = (self._line("") or "").strip().lower() in ("y", "yes")
        self._about.write("" if self.interactive else f"{'yes' if answer else 'no'}\n")
        return answer

    def show(self, reply: Reply) -> None:
        self._output.end_line()
        for line in plain_lines(reply):
            self._about.write(line + "\n")

    def answer(self, events: Iterator[Event], *, unfolded: bool = False, plain: bool = False) -> None:
        """The text of an answer; thoughts, if they are to be shown, are no part of it for a program that reads it."""
        thinking = False
        try:
            for event in events:
                if isinstance(event, Delta) and event.kind == "reasoning":
                    thinking = unfolded
                    self._about.write(event.text if unfolded else "")
                    continue
                if thinking:
                    self._about.end_line()
                    thinking = False
                if isinstance(event, Notice):
                    self.note(event.text)
                elif isinstance(event, Delta):
                    self._output.write(event.text)
        finally:
            self._about.end_line()
            self._output.end_line()

    def ended(self, reason: str) -> None:
        """A length limit is no news to a script; a stopped answer is."""
        if reason in ("cancelled", "repetition"):
            self.note(ENDS[reason])

    def note(self, text: str) -> None:
        self._output.end_line()
        print_text(f"lacewing: {spelled(text, chat=True)}", self._problems)

    def problem(self, text: str) -> None:
        self.note(" ".join(text.split()))

    def busy(self, cancelled: Callable[[], bool]) -> None:
        """A line is about to be worked on."""

    def idle(self) -> None:
        """The work is done."""
