"""Gemma 4: bare keys, and strings between control tokens of their own. Reference: its chat template."""

from __future__ import annotations

import json
from collections.abc import Generator

from lacewing.assistant.tools.definitions import TYPES, Tool
from lacewing.assistant.tools.format import Format
from lacewing.assistant.tools.json_text import MAX_DEPTH, quoted
from lacewing.assistant.tools.lark import Lark, separated
from lacewing.assistant.tools.parsing import ARGUMENTS, NotACall, Parser, Steps
from lacewing.assistant.tools.source import Read
from lacewing.assistant.tools.tagged import as_json
from lacewing.text.marks import partial

BEGIN, END, QUOTE = "<|tool_call>", "<tool_call|>", '<|"|>'
_CLOSING = {"{": "}", "[": "]"}
_STOPS = (",", "}", "]", "{", "[", ":", '"', QUOTE, END)  # what ends a bare key or value
_EVERY = frozenset(TYPES)
Whole = Generator[None, None, bool]  # whether a value was whole


class GemmaCalls(Parser):
    marks = (BEGIN,)

    def call(self) -> Steps:
        source = self.source
        yield from self.expect(BEGIN, "call:")
        name = yield from source.until(("{", END))
        if (yield from source.peek()) != "{":
            raise NotACall
        self.start((name or "").strip())
        yield from self._value(0)
        yield from source.sequence(END)

    def _value(self, depth: int) -> Whole:
        source = self.source
        yield from source.space()
        sign = yield from source.peek()
        if sign in _CLOSING and depth < MAX_DEPTH:
            return (yield from self._container(sign, depth))
        if (yield from source.literal(QUOTE)):
            return (yield from self._string())
        if sign == '"':
            yield from self.copy()
            return True
        text = yield from source.until(_STOPS)
        if text is None and source.closed:
            text, source.at = source.rest, len(source.text)
        if self._cut_here:
            self.emit(ARGUMENTS, text or "")
            return False
        self.emit(ARGUMENTS, as_json(text, _EVERY) if text and text.strip() else "null")
        return text is not None

    def _string(self) -> Whole:
        """What stands between two marks, as it comes."""
        source = self.source
        self.emit(ARGUMENTS, '"')
        while True:
            end = source.rest.find(QUOTE)
            kept = partial(source.rest, (QUOTE,)) if end < 0 else 0
            text = source.rest[: end if end >= 0 else len(source.rest) - kept]
            source.at += len(text)
            if text:
                self.emit(ARGUMENTS, quoted(text))
            if end >= 0:
                yield from source.literal(QUOTE)
                self.emit(ARGUMENTS, '"')
                return True
            if source.closed:
                source.at += kept  # the beginning of a mark
                self.emit(ARGUMENTS, "" if self.cut else '"')
                return False
            yield

    def _container(self, opening: str, depth: int) -> Whole:
        """An object or a list."""
        source, closing, count, at = self.source, _CLOSING[opening], 0, self.source.at
        source.at += 1
        yield from source.space()
        if (yield from source.peek()) == '"':  # as JSON, which it was not taught
            source.at = at
            yield from self.copy()
            return True
        source.at = at + 1
        self.emit(ARGUMENTS, opening)
        while True:
            yield from source.space(",")
            sign = yield from source.peek()
            if sign == closing:
                source.at += 1
                self.emit(ARGUMENTS, closing)
                return True
            key = None if opening == "[" or not sign else (yield from self._key())
            if not sign or (key is None and opening == "{"):
                break
            lead = ", " if count else ""
            self.emit(ARGUMENTS, lead if key is None else f"{lead}{json.dumps(key, ensure_ascii=False)}: ")
            count += 1
            if not (yield from self._value(depth + 1)):
                break
            yield from source.space()
            if (yield from source.peek()) not in (",", closing):
                break
        self.emit(ARGUMENTS, "" if self._cut_here else closing)
        return False

    def _key(self) -> Read:
        """Bare, or between marks; None if there is none."""
        source, at = self.source, self.source.at
        marked = yield from source.literal(QUOTE)
        key = yield from source.until((QUOTE,) if marked else _STOPS)
        if key is not None and (not marked or (yield from source.literal(QUOTE))) and (yield from source.sequence(":")):
            return key if marked else key.strip()
        source.at = len(source.text) if source.closed and key is None else at
        return None

    @property
    def _cut_here(self) -> bool:
        """Whether a limit ended the text at this place."""
        return self.cut and self.source.closed and not self.source.rest


def _call(lark: Lark, tool: Tool) -> str:
    """In the order of the template, which sorts; what is nested is JSON, by its schema."""
    parameters = separated(lark, tool, sorted(tool.properties, key=str.lower), lambda name: _parameter(lark, tool, name), ",")
    return f"{lark.spelt(BEGIN, f'call:{tool.name}{{')} {parameters} {lark.spelt('}', END)}"


def _parameter(lark: Lark, tool: Tool, name: str) -> str:
    schema, types = tool.properties[name], tool.types(name)
    allowed = schema.get("enum") if hasattr(schema, "get") else None
    if isinstance(allowed, list) and allowed and all(isinstance(each, str) for each in allowed):
        return f"{lark.spelt(name + ':')} ({' | '.join(lark.spelt(QUOTE, each, QUOTE) for each in allowed)})"
    if types == frozenset(("string",)):
        return f"{lark.spelt(name + ':', QUOTE)} {lark.up_to(QUOTE)}"
    return f"{lark.spelt(name + ':')} {lark.json(schema, tool.parameters)}"


FORMAT = Format("gemma4", GemmaCalls, spelt=(BEGIN, QUOTE), marks=(BEGIN, END, QUOTE), call=_call)
