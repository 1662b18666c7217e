"""An answer as it comes: thoughts, dimmed and folded away when they end, then the text. At most a few renderings a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.text import Text

from lacewing.chat.session.events import Delta, Event, Finished, Notice
from lacewing.chat.terminal.markdown import MarkdownStream, PlainStream, rendered_lines
from lacewing.chat.terminal.region import Region
from lacewing.console.output import clean, clean_answer
from lacewing.options import counted

INTERVAL = 0.06  # seconds between two renderings, at least
SHARE = 0.05  # of the time may go into rendering: the model needs the CPU
FOLDED_LINES = 4  # of the newest thoughts, while thinking
KEPT_THOUGHTS = 200_000  # characters that unfolding can show


class AnswerView:
    """Shows the events of one answer. Afterwards `finished` is the last event and `thoughts` are all of them.

    `below`: lines that stand under the answer while it comes.
    """

    def __init__(
        self,
        console: Console,
        *,
        unfolded: bool = False,
        plain: bool = False,
        below: Callable[[], Sequence[str]] = tuple,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.finished: Finished | None = None
        self.thoughts = ""
        self._console, self._unfolded, self._below, self._clock = console, unfolded, below, clock
        self._region = Region(console.file, lambda: console.size)
        self._markdown = PlainStream(console) if plain else MarkdownStream(console)
        self._final: list[str] = []  # lines that wait to be written for good
        self._thought = ""  # the line of them that is not complete, when unfolded
        self._thinking_since: float | None = None
        self._drawn, self._wait = 0.0, 0.0

    def show(self, events: Iterator[Event]) -> None:
        """All events; what has come is shown whole, however it ends."""
        try:
            for event in events:
                self._take(event)
        finally:
            self._freeze()
            self._end_thoughts()
            self._final += self._markdown.finish()
            self._draw(())
            self._region.keep()

    def _take(self, event: Event) -> None:
        self._freeze()
        if isinstance(event, Finished):
            self.finished = event
        elif isinstance(event, Notice):
            self._end_thoughts()
            self._final += self._markdown.finish()
            self._final += rendered_lines(self._console, Text(f"· {clean(event.text)}", style="yellow"))
        elif isinstance(event, Delta) and event.kind == "reasoning":
            self._think(event.text)
        elif isinstance(event, Delta):
            self._end_thoughts()
            self._final += self._markdown.push(clean_answer(event.text))
        self._draw_sometimes()

    def _freeze(self) -> None:
        """In tmux, a part of the open lines may have left the screen when its width changed; what is shown is not shown again."""
        if self._region.in_tmux and self._region.resized and self._thinking_since is None:
            self._region.keep()
            self._markdown.freeze()

    def _think(self, text: str) -> None:
        if self._thinking_since is None:
            self._thinking_since = self._clock()
        text = clean_answer(text)
        self.thoughts = (self.thoughts + text)[-KEPT_THOUGHTS:]
        if self._unfolded:
            lines, _, self._thought = (self._thought + text if self._thought else text.lstrip()).rpartition("\n")
            self._final += rendered_lines(self._console, Text(lines, style="dim")) if lines else []

    def _end_thoughts(self) -> None:
        if self._thinking_since is None:
            return
        seconds = self._clock() - self._thinking_since
        self._thinking_since = None
        if self.thoughts.strip():
            fold = "" if self._unfolded else ", Ctrl-O unfolds"
            title = Text(f"thought for {seconds:.1f} s, {counted(len(self.thoughts.split()), 'word')}{fold}", style="dim italic")
            body = dimmed(self._console, self._thought) if self._thought.strip() else []
            self._final += [*body, *rendered_lines(self._console, title), ""]
            self._thought = ""

    def _draw_sometimes(self) -> None:
        began = self._clock()
        if began - self._drawn < self._wait:
            return
        self._draw([*self._open_lines(), *self._below()])
        self._drawn = self._clock()
        self._wait = max(INTERVAL, (self._drawn - began) / SHARE)

    def _open_lines(self) -> list[str]:
        if self._thinking_since is None:
            return self._markdown.lines()
        title = rendered_lines(self._console, Text("thinking ...", style="dim italic"))
        if self._unfolded:
            return dimmed(self._console, self._thought) if self._thought.strip() else []
        return title + dimmed(self._console, self.thoughts[-FOLDED_LINES * self._console.width :])[-FOLDED_LINES:]

    def _draw(self, open_lines: Sequence[str]) -> None:
        self._region.show([*self._final, *open_lines], settled=len(self._final))
        self._final = []


def dimmed(console: Console, text: str) -> list[str]:
    """Thoughts, as lines of the screen."""
    return rendered_lines(console, Text(text.strip(), style="dim"))
