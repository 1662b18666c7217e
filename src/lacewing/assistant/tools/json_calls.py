"""Calls that are JSON objects: `{"name": ..., "arguments": {...}}`, alone, in a list or in a row."""

from __future__ import annotations

import json
from collections.abc import Generator

from lacewing.assistant.tools.json_text import JsonCopier
from lacewing.assistant.tools.parsing import ARGUMENTS, MARKUP, NotACall, Parser, Steps

ARGUMENT_KEYS = ("arguments", "parameters")
_FIRST = (*ARGUMENT_KEYS, "type", "id", "tool_call_id")  # what may stand before the name
_SEPARATORS = ",;"


class JsonCalls(Parser):
    """For formats that write calls so. `loose`: an object needs no arguments to be a call, as its marks say that it is one.

    `name_key`: under which the name of the tool stands.
    """

    name_key = "name"

    def objects(self, loose: bool) -> Steps:
        """One object or more, or a list of them. NotACall if the first is none."""
        source = self.source
        yield from source.space()
        listed = yield from source.literal("[")
        yield from source.space()
        yield from self.object(loose)
        while True:
            self.emit(MARKUP)
            yield from source.space(_SEPARATORS)
            if (yield from source.peek()) != "{":
                break
            yield from self.object(loose)
        if not listed or not (yield from source.sequence("]")):
            source.at = 0  # what stands here belongs to no call

    def object(self, loose: bool) -> Steps:
        """One call. NotACall where it is none, before its START; once begun it ends where it stops being JSON."""
        source = self.source
        yield from self.expect("{")
        name: str | None = None
        early: str | None = None  # arguments that came before the name
        begun = False
        while (key := (yield from self._key())) is not None:
            if name is None and key not in (self.name_key, *_FIRST):
                raise NotACall  # before all of a long object is read
            if key == self.name_key and name is None:
                name = yield from self._string()
                if name not in self.tools:
                    raise NotACall
            elif key in ARGUMENT_KEYS and name is not None and not begun:
                begun = True
                yield from self._begin(name)
            elif key in ARGUMENT_KEYS and early is None and not begun:
                early = yield from self._value()
            elif (yield from self._value()) is None:
                break
            yield from source.space(",")
        ended = yield from source.literal("}")
        if begun:
            return
        if not ended or name is None or (early is None and not loose):
            raise NotACall
        self.start(name)
        self.emit(ARGUMENTS, whole(early or ""))

    def _begin(self, name: str) -> Steps:
        """The arguments of a call whose name is known, as they come."""
        source = self.source
        yield from source.space()
        sign = yield from source.peek()
        if sign == "{":
            self.start(name)
            yield from self.copy()
        elif sign == '"':  # the object as a string, as in OpenAI's API
            text = yield from self._value()
            self.start(name)
            self.emit(ARGUMENTS, whole(text or ""))
        elif (yield from self._value()) in ("null", None):
            self.start(name)
            self.emit(ARGUMENTS, "{}")
        else:
            raise NotACall

    def _key(self) -> Generator[None, None, str | None]:
        source = self.source
        yield from source.space()
        if (yield from source.peek()) != '"':
            return None
        key = yield from self._string()
        return key if key is not None and (yield from source.sequence(":")) else None

    def _string(self) -> Generator[None, None, str | None]:
        yield from self.source.space()
        text = yield from self._value()
        found = None if text is None else json.loads(text)
        return found if isinstance(found, str) else None

    def _value(self) -> Generator[None, None, str | None]:
        """The text of a value that is not shown as it comes; None if it is not whole."""
        source, copier = self.source, JsonCopier()
        yield from source.space()
        texts = []
        while not copier.done and not copier.broken:
            source.at += copier.push(source.rest)
            texts.append(copier.take())
            if copier.done or copier.broken or source.closed:
                break
            yield
        return "".join(texts) if copier.done else None


def whole(text: str) -> str:
    """Text of a model as one JSON object, also of the text of one as a string; empty if it is none."""
    text = text.lstrip()
    if text.startswith('"'):
        text = str(json.loads(text)).lstrip()
    if not text.startswith("{"):
        return "{}"
    copier = JsonCopier()
    copier.push(text)
    return copier.take() + copier.close()
