"""Thoughts, text and tool calls of one answer, told apart in one stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lacewing.assistant.deltas import CallDelta
from lacewing.assistant.tools.format import Format
from lacewing.assistant.tools.parsing import ARGUMENTS, END, REASONING, START, TEXT, Event, Parser

Piece = tuple[str, str] | CallDelta  # (TEXT or REASONING, text), or a part of a call


class ThoughtSplitter(Protocol):
    """Tells thoughts and text apart. `thinking`: what comes now belongs to the thoughts; `interrupt` ends them."""

    @property
    def held(self) -> int: ...

    @property
    def thinking(self) -> bool: ...

    def push(self, text: str) -> Sequence[tuple[str, str]]: ...

    def interrupt(self) -> Sequence[tuple[str, str]]: ...

    def flush(self) -> Sequence[tuple[str, str]]: ...


class CallSplitter:
    """Takes text as it comes and gives pieces of text, thoughts and calls; counts the calls and names them.

    `thoughts`: tells apart what is no call; None if the parser does. A call within thoughts ends them if its marks are control
    tokens (`certain`); else it may be a draft, and is one unless nothing but other calls follows. `ended`: the one call that was
    wanted is whole.
    """

    open = False  # a call may begin at any time

    def __init__(
        self, form: Format, parser: Parser, thoughts: ThoughtSplitter | None, *, certain: bool = True, parallel: bool = True
    ):
        self.ended = False
        self._form, self._parser, self._thoughts = form, parser, thoughts
        self._certain, self._parallel = certain, parallel
        self._ids: list[str] = []
        self._drafts: list[Event] = []
        self._drafted = 0  # characters

    @property
    def held(self) -> int:
        """Characters that are held back."""
        return self._parser.held + self._drafted + (self._thoughts.held if self._thoughts else 0)

    def push(self, text: str) -> list[Piece]:
        """What is certain now."""
        return self._pieces(self._parser.push(text))

    def flush(self, cut: bool = False) -> list[Piece]:
        """The rest, once no more text comes. `cut`: a limit ended the text."""
        pieces = self._pieces(self._parser.flush(cut))
        if self._drafts and self._thoughts:
            pieces += self._thoughts.interrupt()
            pieces += self._pieces(self._undrafted())
        return pieces if self._thoughts is None or self.ended else pieces + list(self._thoughts.flush())

    def _pieces(self, events: Sequence[Event]) -> list[Piece]:
        return [piece for event in events for piece in self._take(event)]

    def _take(self, event: Event) -> list[Piece]:
        if self.ended:
            return []
        if self._drafts and event.kind == TEXT and event.raw.strip():
            return self._dissolve() + self._take(event)
        if self._drafts:
            return self._draft(event)
        if event.kind in (TEXT, REASONING):
            return [(event.kind, event.raw)] if self._thoughts is None else list(self._thoughts.push(event.raw))
        if event.kind == START:
            if self._thoughts is not None and self._thoughts.thinking and not self._certain:
                return self._draft(event)
            return [*self._before(), self._start(event)]
        if event.kind == END:
            self.ended = not self._parallel
        return [CallDelta(len(self._ids) - 1, None, None, event.text)] if event.kind == ARGUMENTS and event.text else []

    def _draft(self, event: Event) -> list[Piece]:
        self._drafts.append(event)
        self._drafted += len(event.raw)
        return []

    def _undrafted(self) -> list[Event]:
        drafts, self._drafts, self._drafted = self._drafts, [], 0
        return drafts

    def _before(self) -> list[Piece]:
        """What stands before a call and is held back."""
        return [] if self._thoughts is None else list(self._thoughts.interrupt())

    def _dissolve(self) -> list[Piece]:
        """Calls within thoughts, after which the thoughts go on: they were drafts."""
        return [piece for event in self._undrafted() if self._thoughts for piece in self._thoughts.push(event.raw)]

    def _start(self, event: Event) -> CallDelta:
        id = event.id
        if id is None or id in self._ids:
            id = self._form.make_id(event.text, len(self._ids))
        while id in self._ids:
            id += "0"
        self._ids.append(id)
        return CallDelta(len(self._ids) - 1, id, event.text, "")
