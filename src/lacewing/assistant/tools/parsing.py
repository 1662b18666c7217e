"""Tool calls told apart from text, wherever the text is cut. What only looks like a call stays text, to the character."""

from __future__ import annotations

from collections.abc import Generator
from typing import NamedTuple

from lacewing.assistant.tools.definitions import Tools
from lacewing.assistant.tools.json_text import JsonCopier
from lacewing.assistant.tools.source import MAX_SPACE, Source
from lacewing.text.marks import first_of, partial

TEXT, REASONING, START, ARGUMENTS, END, MARKUP = "text", "reasoning", "start", "arguments", "end", "markup"

Steps = Generator[None, None, None]


class Event(NamedTuple):
    """`raw` is the text that it was made of: those of all events in a row are the whole text, without a gap.

    `text`: of TEXT and REASONING what is shown, of START the name of the tool, of ARGUMENTS a piece of JSON. `id`: the one that the
    model gave a call, if it did.
    """

    kind: str
    raw: str
    text: str = ""
    id: str | None = None


class NotACall(Exception):
    """What began like a call is text. Never leaves this folder."""


class Parser:
    """Takes text as it comes and gives events; a format says where a call may begin and how one is read.

    `marks`: where a call may begin; `openings`: where one may begin if nothing but white space stands before it, in the answer
    or after one of `fresh_after`. White space around calls belongs to them. `must`: an answer cannot be but calls, so that what a
    limit leaves of one is no text, however little of it there is.
    """

    marks: tuple[str, ...] = ()
    openings: tuple[str, ...] = ()

    def __init__(self, tools: Tools, fresh_after: tuple[str, ...] = (), must: bool = False):
        self.tools, self.source = tools, Source()
        self.cut = False
        self._fresh_after, self._must = fresh_after, must
        self._fresh, self._called, self._started = True, False, False
        self._events: list[Event] = []
        self._steps = self.run()
        next(self._steps)

    @property
    def held(self) -> int:
        """Characters that have come and are in no event yet."""
        return len(self.source.text)

    def push(self, text: str) -> list[Event]:
        """What is certain now."""
        self.source.text += text
        next(self._steps)
        return self._take()

    def flush(self, cut: bool = False) -> list[Event]:
        """The rest, once no more text comes. `cut`: a limit ended the text, so that arguments stay as they are."""
        self.cut, self.source.closed = cut, True
        for _ in self._steps:
            pass
        return self._take()

    def run(self) -> Steps:
        """Reads all of the text."""
        yield
        while True:
            at, mark = self._find()
            if not mark:
                if self.source.closed:
                    return self._end()
                yield
                continue
            space = min(at - len(self.source.text[:at].rstrip()), MAX_SPACE)
            self._text(at - space)
            self.source.at = space
            if mark in self._fresh_after and self.source.text.startswith(mark, space):
                self._text(space + len(mark))
                self._fresh = True
                continue
            self._started, closed = False, self.source.closed
            try:
                yield from self.call()
            except NotACall:
                self.source.at = 0
                if not self._started and self.cut and not closed and (self._must or mark in self.marks):
                    return self._drop()
                if not self._started:
                    self._text(space + 1)
            if self._started:
                self.emit(END)
                self._called = True

    def call(self) -> Steps:
        """Reads calls from the mark at the source's place. NotACall if it is none; only before its START."""
        raise NotImplementedError

    def emit(self, kind: str, text: str = "", id: str | None = None) -> None:
        """An event of all that was read since the last one."""
        source = self.source
        raw, source.text, source.at = source.text[: source.at], source.text[source.at :], 0
        if kind == START:
            self._started = True
        if kind in (TEXT, REASONING):
            text = raw
        if raw or kind not in (TEXT, REASONING, MARKUP):
            self._events.append(Event(kind, raw, text, id))

    def start(self, name: str | None, id: str | None = None) -> None:
        """A call begins. NotACall for a tool that there is not."""
        if name is None or name not in self.tools:
            raise NotACall
        if self._started:  # the one before is whole
            self._events.append(Event(END, ""))
        self.emit(START, name, id)

    def expect(self, *wanted: str) -> Steps:
        """Reads these texts in a row, with any white space before each."""
        if not (yield from self.source.sequence(*wanted)):
            raise NotACall

    def copy(self, stops: tuple[str, ...] = ()) -> Steps:
        """Reads a JSON value to its end, or to one of `stops`; it is closed before what does not follow JSON."""
        source, copier = self.source, JsonCopier()
        while True:
            rest = source.rest
            ends = [at for stop in stops if (at := rest.find(stop)) >= 0]
            source.at += copier.push(rest[: min(ends, default=len(rest) - (0 if source.closed else partial(rest, stops)))])
            if copier.done or copier.broken or ends or source.closed:
                break
            self._arguments(copier.take())
            yield
        cut = self.cut and not copier.broken and not copier.done and not ends
        self._arguments(copier.take() + copier.pending if cut else copier.close())

    def _arguments(self, text: str) -> None:
        if text:
            self.emit(ARGUMENTS, text)

    def _take(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def _find(self) -> tuple[int, str]:
        """Where the next mark is, and which; ends the text before what may become one."""
        text, closed = self.source.text, self.source.closed
        marks = (*self.marks, *self._fresh_after)
        found = [each for each in (first_of(text, marks),) if each[1]]
        begin = text.lstrip() if self._fresh else ""
        found += [(len(text) - len(begin), each) for each in self.openings if begin.startswith(each)][:1]
        if found:
            return min(found, key=lambda each: (each[0], -len(each[1])))
        if not closed:
            may_open = bool(begin) and any(each.startswith(begin) for each in self.openings)
            known = len(text) - (len(text) if may_open else partial(text, marks))
            self._text(max(len(text[:known].rstrip()), known - MAX_SPACE))
        return 0, ""

    def _text(self, count: int) -> None:
        if count:
            self.source.at = count
            self._fresh = self._fresh and not self.source.text[:count].strip()
            self.emit(TEXT)

    def _drop(self) -> None:
        """The beginning of a call that a limit cut before its arguments: no call and no text; the client is told of the limit."""
        self.source.at = len(self.source.text)
        self.emit(MARKUP)

    def _end(self) -> None:
        """What is left at the end: white space after a call is part of it."""
        text = self.source.text
        self.source.at = len(text)
        self.emit(MARKUP if (self._called and not text.strip()) or (self._must and self.cut) else TEXT)


class SectionParser(Parser):
    """Of formats with a section of calls: `one` reads a call from its `begin` on; the marks of the section may be missing."""

    section, begin, section_end = "", "", ""

    def one(self) -> Steps:
        raise NotImplementedError

    def call(self) -> Steps:
        source = self.source
        yield from source.literal(self.section)
        yield from self.one()
        while True:
            self.emit(MARKUP)
            if not (yield from source.sequence(self.begin)):
                break
            source.at = 0
            yield from self.one()
        yield from source.sequence(self.section_end)
