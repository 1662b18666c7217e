"""Calls whose parameters stand between tags, one by one, as text: turned into JSON with the types of the tool's schema."""

from __future__ import annotations

import json
from collections.abc import Generator

from lacewing.assistant.tools.definitions import Tool, type_of
from lacewing.assistant.tools.json_text import JsonCopier, quoted
from lacewing.assistant.tools.parsing import ARGUMENTS, MARKUP, Parser, Steps
from lacewing.text.marks import partial

STRING = frozenset(("string",))
_WORDS = {"True": "true", "False": "false", "None": "null"}

Parameter = tuple[str, frozenset[str]]  # its name and types


class TaggedCalls(Parser):
    """For formats that write calls so. A value ends where `closing` stands and then one of `followers`, so it may hold either.

    `trims`: the line break after the opening tag and the one before the closing tag are no part of the value.
    """

    closing = ""
    followers: tuple[str, ...] = ()
    trims = False

    def parameter(self, tool: Tool) -> Generator[None, None, Parameter | None]:
        """Reads what opens a value; None where there is no other parameter, with the source's place as it was."""
        raise NotImplementedError

    def invocations(self, begin: str, end: str) -> Steps:
        """The calls of a block: each is `begin`, its name up to `">`, its parameters and `end`."""
        source = self.source
        while True:
            yield from self.expect(begin)
            name = yield from source.until(('"',))
            yield from source.literal('">')
            self.start(name)
            yield from self.parameters(self.tools[name or ""])
            yield from source.sequence(end)
            self.emit(MARKUP)
            if not (yield from source.sequence(begin)):
                return
            source.at = 0

    def parameters(self, tool: Tool) -> Steps:
        """The arguments of a call that has begun: all parameters, up to what closes the call."""
        count, complete = 0, True
        while complete and (found := (yield from self.parameter(tool))) is not None:
            name, types = found
            lead = f'{", " if count else "{"}"{quoted(name)}": '
            complete = yield from (self._text_value(lead) if types == STRING else self._value(lead, types))
            count += 1
        yield from self.source.space()
        if not (self.cut and self.source.closed and not self.source.rest):
            self.emit(ARGUMENTS, "}" if count else "{}")

    def _text_value(self, lead: str) -> Generator[None, None, bool]:
        """A string, as it comes."""
        self.emit(ARGUMENTS, f'{lead}"')
        pieces, complete = self._pieces(), False
        for piece in pieces:
            if piece is None:
                yield
            elif piece:
                self.emit(ARGUMENTS, quoted(piece))
            else:
                complete = True
        if complete or not self.cut:
            self.emit(ARGUMENTS, '"')
        return complete

    def _value(self, lead: str, types: frozenset[str]) -> Generator[None, None, bool]:
        """Any other value, once it is whole."""
        texts, complete = [], False
        for piece in self._pieces():
            if piece is None:
                yield
            elif piece:
                texts.append(piece)
            else:
                complete = True
        text = "".join(texts)
        self.emit(ARGUMENTS, lead + (as_json(text, types) if complete or not self.cut else text))
        return complete

    def _pieces(self) -> Generator[str | None, None, None]:
        """The text of a value: pieces of it, None where more must come, "" when its end was read."""
        source = self.source
        if self.trims:
            yield from source.literal("\n")
        while True:
            rest = source.rest
            end = rest.find(self.closing)
            if end < 0:
                kept = partial(rest, (self.closing,))
                kept += self.trims and rest[: len(rest) - kept].endswith("\n")
                source.at += len(rest) - kept
                if kept < len(rest):
                    yield rest[: len(rest) - kept]
                if source.closed:
                    source.at += kept  # the beginning of a tag
                    return
                yield None
                continue
            start = source.at
            source.at += end + len(self.closing)
            yield from source.space()
            closes = (yield from source.one_of(self.followers)) is not None
            closes = closes or (source.closed and any(each.startswith(source.rest) for each in self.followers))
            source.at = start
            if closes:
                text = rest[:end].removesuffix("\n") if self.trims else rest[:end]
                source.at += len(text)
                if text:
                    yield text
                yield from source.sequence(self.closing)
                yield ""
                return
            source.at += end + 1
            yield rest[: end + 1]


def as_json(text: str, types: frozenset[str]) -> str:
    """A value that a model wrote as bare text, as JSON of one of the types if it can be read so; else as a string."""
    string = json.dumps(text, ensure_ascii=False)
    bare = text.strip()
    copier, ended = JsonCopier(), f"{_WORDS.get(bare, bare)} "  # with the space a number or word is at its end
    read = copier.push(ended)
    if not copier.done or read < len(ended) - 1:
        return string
    found = copier.take()
    try:
        kind = type_of(json.loads(found))
    except (ValueError, RecursionError):
        return string
    fits = kind in types or (kind == "integer" and "number" in types) or "string" not in types
    return found if fits and kind != "string" else string
