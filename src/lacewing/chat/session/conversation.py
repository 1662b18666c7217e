"""A conversation, and what can be done with its messages. Who answers is a subclass's business: a model here, or a server."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from lacewing.assistant.deltas import Delta as AnswerDelta
from lacewing.chat.session.events import Delta, Event, Finished, Status, Ui
from lacewing.chat.session.formatter import VisibleHistory
from lacewing.chat.session.settings import Message, SavedAs, Settings
from lacewing.engine.stats import Stats
from lacewing.errors import LacewingError, OptionError

MAX_REPLACED = 20  # conversations that can be gone back to


class Streamed(Protocol):
    """An answer as it comes. `finish_reason`: None until it has ended."""

    def __iter__(self) -> Iterator[AnswerDelta]: ...
    def close(self) -> None: ...
    @property
    def finish_reason(self) -> str | None: ...
    @property
    def stats(self) -> Stats: ...


@dataclass(frozen=True)
class Replaced:
    """A conversation that another one has replaced, and what `go_back` needs: what was shown of it, and the new messages.

    `settings` only if they were replaced too.
    """

    messages: list[Message]
    saved: SavedAs | None
    attachments: list[str]
    settings: Settings | None
    shown: Any
    after: list[Message]


class Conversation(ABC):
    """Messages, settings, and the texts that go with the next message. Knows no terminal and prints nothing.

    Whoever opens it may set `autosave`, which is called before work in which a driver may end the process.
    """

    def __init__(self, settings: Settings | None, ui: Ui | None):
        self.settings = settings or Settings()
        self.ui = ui or Ui()
        self.messages: list[Message] = []
        self.notices: list[str] = []
        self.attachments: list[str] = []  # texts of files that go in front of the next message
        self.extras: dict[str, Any] = {}
        self.saved: SavedAs | None = None
        self.replaced: list[Replaced] = []  # the latest last
        self.autosave: Callable[[], None] = lambda: None

    # ---- who answers ----

    @abstractmethod
    def answer(self) -> Iterator[Event]:
        """Answer the conversation as it stands."""

    @abstractmethod
    def continue_(self) -> Iterator[Event]:
        """Go on with the last answer where it ended."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The model's, as its file or its server calls it."""

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the model is: a path, or a server's address."""

    @property
    @abstractmethod
    def stats(self) -> dict[str, float]:
        """Of the last answer, as `Stats.as_dict`; empty if this conversation has none by the current model."""

    @property
    @abstractmethod
    def history(self) -> VisibleHistory:
        """The part of the conversation that is sent to the model."""

    @history.setter
    @abstractmethod
    def history(self, history: VisibleHistory) -> None: ...

    @abstractmethod
    def status(self) -> Status:
        """For a toolbar."""

    @abstractmethod
    def described(self) -> str:
        """The model and where it is, in a few words."""

    @abstractmethod
    def close(self) -> None:
        """Gives back what the conversation holds: models, connections."""

    @abstractmethod
    def _note(self, answer: Streamed) -> None:
        """Keep the figures of an answer that has ended."""

    @abstractmethod
    def _clamp(self, count: int) -> None:
        """All messages but the first `count` are gone."""

    @abstractmethod
    def _shown(self) -> Any:
        """What is sent of this conversation, for `_show`."""

    @abstractmethod
    def _show(self, shown: Any, settings: bool) -> None:
        """Send that again, or everything if it is None. `settings`: the settings of then are back as well."""

    # ---- talking ----

    def say(self, text: str) -> Iterator[Event]:
        """Add a message and answer it. If that fails or is cancelled before any text came, the message is removed again."""
        content = "\n\n".join([*self.attachments, text])
        attachments, self.attachments = self.attachments, []
        self.messages.append({"role": "user", "content": content})
        count = len(self.messages)
        try:
            yield from self.answer()
        finally:
            if len(self.messages) == count and self.messages[-1]["role"] == "user":
                self.cut(count - 1)
                self.attachments = attachments

    def retry(self) -> Iterator[Event]:
        """Answer the last message once more; the previous answer is kept if that fails."""
        at = self._last("user")
        before, history = self.messages[at + 1 :], self.history
        self.cut(at + 1)
        try:
            yield from self.answer()
        finally:
            if len(self.messages) == at + 1:
                self.messages += before
                self.history = history

    def say_instead(self, text: str) -> Iterator[Event]:
        """Another text for your last message; the old one and its answer are kept if that fails."""
        at, history = self._last("user"), self.history
        before = self.cut(at)
        try:
            yield from self.say(text)
        finally:
            if len(self.messages) == at:
                self.messages += before
                self.history = history

    def _receive(self, answer: Streamed, message: Message) -> Iterator[Event]:
        """Stream an answer into `message`, which becomes part of the conversation unless no text came."""
        self.messages.append(message)
        ended = failed = False
        try:
            for delta in answer:
                for key, kind, text in (("reasoning", "reasoning", delta.reasoning), ("content", "text", str(delta))):
                    if text:
                        message[key] = message.get(key, "") + text
                        yield Delta(text, kind)
            ended = answer.finish_reason != "cancelled"
        except LacewingError:
            failed = True
            raise
        finally:  # also if the reader stops reading
            answer.close()
            self._note(answer)
            something = bool(message["content"] or message.get("reasoning"))
            if (failed or not (ended or something)) and self.messages[-1:] == [message]:
                self.messages.pop()
        yield Finished(answer.finish_reason or "stop", answer.stats.as_dict())

    # ---- the messages ----

    def cut(self, count: int) -> list[Message]:
        """Keep the first `count` messages; the others are given back."""
        gone = self.messages[count:]
        del self.messages[count:]
        self._clamp(count)
        return gone

    def replace(self, messages: list[Message], settings: Settings | None = None) -> None:
        """Another conversation, with its settings if it has any."""
        if self.messages:
            old = Replaced(
                self.messages, self.saved, self.attachments, self.settings if settings else None, self._shown(), list(messages)
            )
            self.replaced = [*self.replaced[1 - MAX_REPLACED :], old]
        self.messages, self.saved, self.attachments = messages, None, []
        self.settings = settings or self.settings
        self._show(None, False)

    def go_back(self) -> bool:
        """Back to the conversation that the current one has replaced, if nothing else has been said since; whether it is."""
        if not self.replaced or self.messages != self.replaced[-1].after:
            return False
        old = self.replaced.pop()
        self.messages, self.saved, self.attachments = old.messages, old.saved, old.attachments
        self.settings = old.settings or self.settings
        self._show(old.shown, old.settings is not None)
        return True

    def undo(self) -> list[Message]:
        """Take the last exchange back: your message and what came after it."""
        return self.cut(self._last("user"))

    def last_answer(self) -> str | None:
        """Its text, without thoughts."""
        found = [each["content"] for each in self.messages if each["role"] == "assistant"]
        return found[-1] if found else None

    def change(self, **fields: Any) -> None:
        """Change settings. Raises OptionError for values out of range."""
        self.settings = dataclasses.replace(self.settings, **fields)

    def _last(self, role: str) -> int:
        found = [at for at, each in enumerate(self.messages) if each["role"] == role]
        if not found:
            raise OptionError("the conversation is empty")
        return found[-1]
