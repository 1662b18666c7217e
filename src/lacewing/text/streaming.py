"""Token ids to text, piece by piece, never breaking a character, up to a stop string or to where it only repeats itself."""

from __future__ import annotations

import codecs
import re
from array import array
from collections.abc import Callable, Sequence

from lacewing.errors import OptionError
from lacewing.text.vocabulary import TokenType, Vocabulary

MAX_STOPS = 32  # a person's 16, and those of a template
MAX_LENGTH = 256
PERIOD = 256  # tokens: the longest passage whose repetition is noticed
WITHOUT_WORDS = 4  # times as long may a table of numbers or a line of dashes repeat itself
_EVERY, _SEED = 16, 16  # tokens between two looks, and those that an earlier copy is found by
_NUMBERS, _WORD = re.compile(r"\b0x[0-9a-fA-F]+"), re.compile(r"[^\W\d_]{2}")


class StreamDecoder:
    """Turns ids into text as they come. The concatenation of all `push` results and `flush` is the decoded whole.

    Bytes of a character that is not complete yet are held back; bytes that can never become one give U+FFFD.
    `strip`: drop one leading space of the first text, which the encoder of some vocabularies added.
    `incomplete`: a character has begun and is not whole.
    """

    def __init__(self, vocabulary: Vocabulary, *, strip: bool, special: bool):
        self._vocabulary, self._strip, self._special = vocabulary, strip, special
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self.incomplete = False

    def push(self, token: int) -> str:
        """The text that this id completes; often "", when it ends within a character."""
        if not (self.incomplete or self._strip or self._special):
            text = self._vocabulary.text_of(token)
            if text is not None:  # nearly always
                return text
        data = self.bytes_of(token)
        if self._strip:
            self._strip = self.hides(token)
        text = self._utf8.decode(data)
        self.incomplete = bool(self._utf8.getstate()[0])
        return text

    def hides(self, token: int) -> bool:
        """Whether an id never adds anything, as a control token."""
        return not self._vocabulary.bytes_of(token, self._special)

    def bytes_of(self, token: int) -> bytes:
        """What this id would add to the text next."""
        data = self._vocabulary.bytes_of(token, self._special)
        if self._strip and self._vocabulary.types[token] == TokenType.NORMAL:  # before a user-defined token no space was put
            data = data.removeprefix(b" ")
        return data

    def flush(self) -> str:
        """What is held back at the end: "" or U+FFFD for a character that never became complete."""
        rest = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        self.incomplete = False
        return rest


class StopStrings:
    """Passes text on until one of the stop strings occurs, wherever deltas are cut. `first`: characters that begin one.

    Text that may be the start of a stop string is held back until it is clear. Of strings that occur, the one that
    begins first counts. After a stop, `hit` is that string and no more text comes.
    """

    def __init__(self, stops: Sequence[str] = ()):
        if isinstance(stops, str):
            stops = [stops]
        if len(stops) > MAX_STOPS or any(not isinstance(stop, str) or not 0 < len(stop) <= MAX_LENGTH for stop in stops):
            raise OptionError(f"`stop` must be at most {MAX_STOPS} strings of 1 to {MAX_LENGTH} characters")
        self._stops = tuple(dict.fromkeys(stops))
        self.first = frozenset(stop[0] for stop in self._stops)
        self._held = ""
        self._cut = 0
        self.hit: str | None = None

    @property
    def held(self) -> int:
        """Characters that are held back; after a stop, those from where it begins."""
        return len(self._held) + self._cut

    def passes(self, delta: str) -> bool:
        """Whether all of it is safe to show now, as no stop string begins in it: nearly always, and quickly told."""
        return not self._held and self.hit is None and self.first.isdisjoint(delta)

    def push(self, delta: str) -> str:
        """The text that is safe to show now."""
        if self.passes(delta):
            return delta
        if self.hit is not None:
            self._cut += len(delta)
            return ""
        text = self._held + delta
        held = self._start_of_hold(text)
        if (before := self._stop(text, held)) is not None:
            return before
        self._held = text[held:]
        return text[:held]

    def flush(self) -> str:
        """The rest, once no more text comes."""
        rest, self._held = self._held, ""
        before = None if self.hit is not None else self._stop(rest, len(rest))
        return rest if before is None else before

    def _stop(self, text: str, end: int) -> str | None:
        """What stands before the first stop string, if one begins up to `end`: then all is over."""
        found = [(at, len(stop), stop) for stop in self._stops if 0 <= (at := text.find(stop)) <= end]
        if not found:
            return None
        at, _, self.hit = min(found)
        self._held, self._cut = "", len(text) - at
        return text[:at]

    def _start_of_hold(self, text: str) -> int:
        """Where the earliest beginning of an unfinished stop string is; the end of the text if there is none."""
        longest = max(map(len, self._stops)) - 1
        for at in range(max(0, len(text) - longest), len(text)):
            if any(len(stop) > len(text) - at and stop.startswith(text[at:]) for stop in self._stops):
                return at
        return len(text)


class RepeatGuard:
    """Notices that an answer does nothing but repeat itself: each of its last `limit` tokens is the one a period before it.

    The period is 1 to `PERIOD` tokens, so a passage of 200 tokens must come four times, and one that changes at all, such as a
    numbered list, never counts. Passages without a word, as of zeros in a table, may go on `WITHOUT_WORDS` times as long.
    `limit` 0: never. Takes a few microseconds every 16 tokens, whatever their number.
    """

    def __init__(self, limit: int, decode: Callable[[Sequence[int]], str]):
        self._limit, self._decode = limit, decode
        self._ids = array("i")

    def push(self, token: int) -> bool:
        """Whether the answer should end with this token."""
        if not self._limit:
            return False
        self._ids.append(token)
        if len(self._ids) % _EVERY or not self._repeats(self._limit):
            return False
        text = self._decode(self._ids[-min(self._limit, PERIOD) :].tolist())
        return bool(_WORD.search(_NUMBERS.sub("", text))) or self._repeats(WITHOUT_WORDS * self._limit)

    def _repeats(self, count: int) -> bool:
        """Whether the last `count` tokens have a period. Candidates are where the last few occurred before."""
        if len(self._ids) <= count:
            return False
        size = self._ids.itemsize
        tail = self._ids[-count - PERIOD :].tobytes()
        last = tail[-_SEED * size :]
        at = len(tail) - len(last)
        while (at := tail.rfind(last, 0, at + len(last) - 1)) >= 0:
            period = len(tail) - len(last) - at
            if period > PERIOD * size or period + count * size > len(tail):
                return False
            if not period % size and tail[-count * size :] == tail[-count * size - period : -period]:
                return True
        return False
