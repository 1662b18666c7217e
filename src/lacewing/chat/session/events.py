"""Events and status of a session, and the callbacks that it needs from a user interface. No terminal here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lacewing.errors import Cancelled, OptionError


@dataclass(frozen=True)
class Delta:
    """A piece of an answer. `kind`: "text", or "reasoning" for thoughts before it."""

    text: str
    kind: str = "text"


@dataclass(frozen=True)
class Notice:
    """Something a person should know, shown on a line of its own, such as that messages were dropped."""

    text: str


@dataclass(frozen=True)
class Finished:
    """The last event. `reason`: "stop", "length", "cancelled" or "repetition"; `stats` as `Stats.as_dict`."""

    reason: str
    stats: Mapping[str, float] = field(default_factory=dict)


Event = Delta | Notice | Finished


@dataclass(frozen=True)
class Status:
    """What a toolbar shows, of the current model and conversation. The rate is of the last answer, 0 before one.

    What a server does not tell is "" or 0.

    `code`: whether the model is told how to propose edits.
    """

    model: str
    template: str
    residency: str
    backend: str
    used_tokens: int
    context: int
    tokens_per_second: float
    code: bool = False


def _silent(what: str, done: int, total: int) -> None:
    """No progress."""


def _never() -> bool:
    return False


def _refuse(question: str) -> bool:
    """Without a user to ask, nothing is confirmed."""
    return False


def _no_editor(text: str) -> str | None:
    raise OptionError("there is no editor here; this works in a terminal")


def _no_clipboard(text: str) -> str:
    raise OptionError("there is no clipboard here; this works in a terminal")


@dataclass
class Ui:
    """Callbacks of a user interface; the defaults are for running without one.

    `progress(what, done, total)`: of long work; `cancelled()`: whether it should end; `confirm(question)`: yes or no;
    `edit(text)`: the text as changed in an editor, None for unchanged or given up; `copy(text)`: to the clipboard, and
    what is not certain about it; `interactive`: whether a person is there, who can be asked about something that a line did not
    expect.
    """

    progress: Callable[[str, int, int], None] = _silent
    cancelled: Callable[[], bool] = _never
    confirm: Callable[[str], bool] = _refuse
    edit: Callable[[str], str | None] = _no_editor
    copy: Callable[[str], str] = _no_clipboard
    interactive: bool = False

    def ask(self, question: str, refusal: str) -> None:
        """Go on if a person says yes. Raises Cancelled if they do not, and OptionError with `refusal` if nobody is there."""
        if not self.interactive:
            raise OptionError(refusal)
        if not self.confirm(question):
            raise Cancelled("cancelled; nothing was changed")
