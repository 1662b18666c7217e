"""JSON as a model writes it to JSON as clients read it, character by character and whole whenever it ends."""

from __future__ import annotations

import json
import re

MAX_DEPTH = 100
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?\Z")
_WORDS = {"true": "true", "false": "false", "null": "null", "True": "true", "False": "false", "None": "null", "NaN": "null"}
_WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-.")
_LONGEST_WORD = 400
_SPACE = " \t\n\r"
_ESCAPES = frozenset('"\\/bfnrt')
_HEX = frozenset("0123456789abcdefABCDEF")
_CLOSING = {"{": "}", "[": "]"}


class JsonCopier:
    """Copies one JSON value as it comes: `push` takes text, `take` gives what is certain, `done` says that the value is whole.

    Valid JSON comes out as it went in. What models write instead is put right: Python's words, single quotes, line breaks in
    strings, unknown escapes, commas too many. At anything else it is `broken` and reads no further; `close` then, and at an early
    end, gives what makes all that was given out one whole value.
    """

    def __init__(self) -> None:
        self.done = self.broken = False
        self._out: list[str] = []
        self._stack: list[str] = []  # open containers: "{" or "["
        self._next = "value"  # value, key, colon, comma, string, word; "first": a value or key, or the end of what is empty
        self._quote, self._key, self._escape = "", False, ""
        self._word = ""
        self._held = ""  # a comma and white space that are written once something follows

    def take(self) -> str:
        """What is new since the last time."""
        text = "".join(self._out)
        self._out.clear()
        return text

    @property
    def pending(self) -> str:
        """What was read and cannot be given out yet, as it was read."""
        return self._held + self._word + self._escape

    def push(self, text: str) -> int:
        """Reads as much as belongs to the value; the number of characters."""
        at = 0
        while at < len(text) and not self.done and not self.broken:
            if self._next == "string" and not self._escape:
                at = self._plain(text, at)
                continue
            if self._read(text[at]):
                at += 1
        return at

    def close(self) -> str:
        """The text that ends the value wherever it stands; after it nothing may be pushed."""
        if self.done:
            return self.take()
        if self._next == "string":
            self._finish_escape(closing=True)
            self._end_string('"')
        if self._next == "word" and not self._end_word():
            self._value("null")
        self._held = ""
        if self._next == "colon":
            self._out.append(":")
            self._next = "value"
        if self._next == "value" and not (self._stack and self._stack[-1] == "["):
            self._out.append(" null" if self._stack else "null")
        self._out += [_CLOSING[each] for each in reversed(self._stack)]
        self._stack.clear()
        self.done = True
        return self.take()

    def _plain(self, text: str, at: int) -> int:
        """Characters of a string up to the next that means something."""
        start = at
        while at < len(text) and text[at] not in "\"\\'" and text[at] >= " ":
            at += 1
        self._out.append(text[start:at])
        if at == len(text):
            return at
        sign = text[at]
        if sign == self._quote:
            self._end_string('"')
        elif sign == "\\":
            self._escape = sign
        else:  # the other quote, or a control character that JSON wants escaped
            self._out.append(sign if sign == "'" else json.dumps(sign)[1:-1])
        return at + 1

    def _read(self, sign: str) -> bool:
        """One character; False if it must be looked at again in the new state."""
        if self._escape:
            return self._read_escape(sign)
        if self._next == "word":
            return self._read_word(sign)
        if sign in _SPACE:
            self._white(sign)
        elif self._next == "comma":
            self._after_value(sign)
        elif self._next == "colon":
            self._expect(sign == ":", sign, "value")
        elif sign in "]}" and self._stack and sign == _CLOSING[self._stack[-1]] and self._may_close():
            self._close_container(sign)
        elif self._next == "key" or (self._next == "first" and self._stack[-1] == "{"):
            self._begin_string(sign, key=True)
        else:
            self._begin_value(sign)
        return not self.broken

    def _white(self, sign: str) -> None:
        if self._held:
            self._held += sign
        else:
            self._out.append(sign)

    def _may_close(self) -> bool:
        """Of an empty container, or after a comma too many."""
        return self._next in ("first", "key") or (self._next == "value" and self._stack[-1] == "[")

    def _begin_value(self, sign: str) -> None:
        if sign in _CLOSING:
            if len(self._stack) >= MAX_DEPTH:
                self.broken = True
                return
            self._write(sign)
            self._stack.append(sign)
            self._next = "first"
        elif sign in "\"'":
            self._begin_string(sign, key=False)
        elif sign in _WORD:
            self._word, self._next = sign, "word"
        else:
            self.broken = True

    def _begin_string(self, sign: str, *, key: bool) -> None:
        if sign not in "\"'":
            self.broken = True
            return
        self._write('"')
        self._quote, self._key, self._next = sign, key, "string"

    def _end_string(self, quote: str) -> None:
        self._out.append(quote)
        if self._key:
            self._next = "colon"
        else:
            self._valued()

    def _read_escape(self, sign: str) -> bool:
        escape = self._escape + sign
        if escape == "\\u" or (len(self._escape) > 1 and sign in _HEX):
            self._escape = escape
            if len(escape) == 6:
                self._out.append(escape)
                self._escape = ""
            return True
        if len(self._escape) > 1:  # \u without its digits
            self._finish_escape()
            return False
        if sign in _ESCAPES:
            self._out.append(escape)
        elif sign == "'":
            self._out.append("'")
        else:  # such as \d of a regular expression
            self._out.append("\\\\")
            self._escape = ""
            return False
        self._escape = ""
        return True

    def _finish_escape(self, closing: bool = False) -> None:
        """An escape that does not become whole: the characters themselves, or nothing of a lone backslash at the end."""
        if self._escape and not (closing and self._escape == "\\"):
            self._out.append("\\" + self._escape)
        self._escape = ""

    def _read_word(self, sign: str) -> bool:
        if sign in _WORD and len(self._word) < _LONGEST_WORD:
            self._word += sign
            return True
        if not self._end_word():
            self.broken = True
        return False

    def _end_word(self) -> bool:
        word = _WORDS.get(self._word) or (self._word if _NUMBER.match(self._word) else None)
        if word is None:
            return False
        self._value(word)
        return True

    def _value(self, text: str) -> None:
        self._word = ""
        self._write(text)
        self._valued()

    def _valued(self) -> None:
        self._next = "comma"
        self.done = not self._stack

    def _after_value(self, sign: str) -> None:
        if sign == _CLOSING[self._stack[-1]]:
            self._close_container(sign)
        elif sign == ",":
            self._held, self._next = sign, "key" if self._stack[-1] == "{" else "value"
        else:
            self.broken = True

    def _close_container(self, sign: str) -> None:
        self._held = ""
        self._out.append(sign)
        self._stack.pop()
        self._valued()

    def _expect(self, right: bool, sign: str, then: str) -> None:
        if right:
            self._out.append(sign)
            self._next = then
        else:
            self.broken = True

    def _write(self, text: str) -> None:
        self._out.append(self._held + text)
        self._held = ""


def quoted(text: str) -> str:
    """The inside of a JSON string, without quotes."""
    return json.dumps(text, ensure_ascii=False)[1:-1]
