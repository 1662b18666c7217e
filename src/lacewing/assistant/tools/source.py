"""Text that comes in pieces, for parsers that are written as if it were all there: a generator that waits yields."""

from __future__ import annotations

from collections.abc import Generator, Sequence

Wait = Generator[None, None, bool]
Read = Generator[None, None, str | None]

MAX_HEADER = 400  # characters from the beginning of a call to its arguments, at most
MAX_SPACE = 400  # characters of white space in front of a call that belong to it


class Source:
    """What has come and is not committed yet: `text`; its first `at` characters are read.

    The methods are generators: they yield whenever more text must come before they know. `closed`: none will. None of them moves
    `at` if it fails.
    """

    def __init__(self) -> None:
        self.text, self.at = "", 0
        self.closed = False

    @property
    def rest(self) -> str:
        return self.text[self.at :]

    def peek(self) -> Read:
        """The next character; "" at the end."""
        while self.at >= len(self.text) and not self.closed:
            yield
        return self.text[self.at : self.at + 1]

    def literal(self, wanted: str) -> Wait:
        """Read exactly this."""
        while True:
            if self.text.startswith(wanted, self.at):
                self.at += len(wanted)
                return True
            if self.closed or not wanted.startswith(self.rest):
                return False
            yield

    def one_of(self, wanted: Sequence[str]) -> Read:
        """Read the one of several texts that comes, the first of them that fits; none is a beginning of another."""
        while True:
            rest = self.rest
            for each in wanted:
                if rest.startswith(each):
                    self.at += len(each)
                    return each
            if self.closed or not any(each.startswith(rest) for each in wanted):
                return None
            yield

    def space(self, also: str = "") -> Wait:
        """Read white space, and the characters of `also`. True, also if there is none."""
        while True:
            while self.at < len(self.text) and (self.text[self.at].isspace() or self.text[self.at] in also):
                self.at += 1
            if self.closed or self.at < len(self.text):
                return True
            yield

    def sequence(self, *wanted: str) -> Wait:
        """Read these texts in a row, with any white space in front of each."""
        start = self.at
        for each in wanted:
            yield from self.space()
            if not (yield from self.literal(each)):
                self.at = start
                return False
        return True

    def until(self, stops: Sequence[str], limit: int = MAX_HEADER) -> Read:
        """Read up to the first of these texts, which stays; None if there is none within `limit` characters."""
        longest = max(map(len, stops))
        while True:
            window = self.text[self.at : self.at + limit + longest]
            found = [at for stop in stops if (at := window.find(stop)) >= 0]
            if found and min(found) <= limit:
                self.at += min(found)
                return window[: min(found)]
            if self.closed or len(window) >= limit + longest:
                return None
            yield
