"""Stop strings in a stream of text deltas."""

from __future__ import annotations

from collections.abc import Sequence

from lacewing.errors import OptionError

MAX_STOPS = 32  # a person's 16, and those of a template
MAX_LENGTH = 256


class StopStrings:
    """Passes text on until one of the stop strings occurs, wherever deltas are cut.

    Text that may be the start of a stop string is held back until it is clear. Of strings that occur, the one that
    begins first counts. After a stop, `hit` is that string and no more text comes.
    """

    def __init__(self, stops: Sequence[str] = ()):
        if isinstance(stops, str):
            stops = [stops]
        if len(stops) > MAX_STOPS or any(not isinstance(stop, str) or not 0 < len(stop) <= MAX_LENGTH for stop in stops):
            raise OptionError(f"stop must be at most {MAX_STOPS} strings of 1 to {MAX_LENGTH} characters")
        self._stops = tuple(dict.fromkeys(stops))
        self._held = ""
        self.hit: str | None = None

    def push(self, delta: str) -> str:
        """The text that is safe to show now."""
        if self.hit is not None:
            return ""
        if not self._stops:
            return delta
        text = self._held + delta
        found = [(at, len(stop), stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        held = self._start_of_hold(text)
        if found and min(found)[0] <= held:
            at, _, self.hit = min(found)
            self._held = ""
            return text[:at]
        self._held = text[held:]
        return text[:held]

    def flush(self) -> str:
        """The rest, once no more text comes."""
        rest, self._held = self._held, ""
        if self.hit is None:
            found = [(at, len(stop), stop) for stop in self._stops if (at := rest.find(stop)) >= 0]
            if found:
                at, _, self.hit = min(found)
                return rest[:at]
        return rest

    def _start_of_hold(self, text: str) -> int:
        """Where the earliest beginning of an unfinished stop string is; the end of the text if there is none."""
        longest = max(map(len, self._stops)) - 1
        for at in range(max(0, len(text) - longest), len(text)):
            if any(len(stop) > len(text) - at and stop.startswith(text[at:]) for stop in self._stops):
                return at
        return len(text)
