"""A conversation with a model, both of which may change. Knows no terminal and prints nothing."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from lacewing.api import Model
from lacewing.assistant.answer import Answer
from lacewing.chat.session.events import Delta, Event, Finished, Notice, Status, Ui
from lacewing.chat.session.formatter import ChatFormatter, VisibleHistory, open_formatter
from lacewing.chat.session.models import Closed, OnDevice, Parked
from lacewing.chat.session.overflow import Summarise, clamp, fit, summarise
from lacewing.chat.session.settings import Message, SavedAs, Settings
from lacewing.errors import BackendError, LacewingError, OptionError
from lacewing.options import LoadOptions

MAX_REPLACED = 20  # conversations that can be gone back to


@dataclass(frozen=True)
class Replaced:
    """A conversation that another one has replaced, and what `go_back` needs: `histories` by tokenizer, and the new messages.

    `settings` and `formatter` only if they were replaced too.
    """

    messages: list[Message]
    saved: SavedAs | None
    attachments: list[str]
    histories: list[tuple[Any, VisibleHistory]]
    settings: Settings | None
    formatter: ChatFormatter
    after: list[Message]


def _raise(error: BackendError) -> list[str]:
    raise error


class Session:
    """One conversation. `current` is its model, `parked` are those that `/model -` goes back to, the latest first.

    Whoever opens it may set two callbacks. `autosave` is called before work in which a GPU's driver may end the process.
    `fall_back(error)` brings the session to another backend after a GPU failed, and returns what a person should know of it;
    it raises the error again where that is not wanted.
    """

    def __init__(self, model: Model, settings: Settings | None = None, *, ui: Ui | None = None, name: str | None = None):
        self.settings = settings or Settings()
        self.ui = ui or Ui()
        self.messages: list[Message] = []
        self.parked: list[Parked] = []
        self.notices: list[str] = []
        self.options: LoadOptions = model.options
        formatter = open_formatter(model.info, self.notices, self.ui.cancelled)
        self.current: OnDevice | Closed = OnDevice(formatter, name or str(model.path), model)
        self._stats: tuple[Model | None, dict[str, float]] = None, {}  # of the last answer, and who gave it
        self._counted: tuple[Any, int] = None, 0  # a state of the conversation, and its tokens
        self.rates: dict[tuple[str, str], float] = {}  # generated tokens/s by (path, residency)
        self.attachments: list[str] = []  # texts of files that go in front of the next message
        self.extras: dict[str, Any] = {}
        self.saved: SavedAs | None = None
        self.replaced: list[Replaced] = []  # the latest last
        self.autosave: Callable[[], None] = lambda: None
        self.fall_back: Callable[[BackendError], list[str]] = _raise

    @property
    def loaded(self) -> OnDevice:
        """The current model, which answers. Raises ModelClosedError if it was closed."""
        if isinstance(self.current, Closed):
            raise self.current.error
        return self.current

    @property
    def model(self) -> Model:
        """Raises ModelClosedError."""
        return self.loaded.model

    @property
    def formatter(self) -> ChatFormatter:
        return self.current.formatter

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

    def answer(self) -> Iterator[Event]:
        """Answer the conversation as it stands; if a GPU fails, on the CPU if the person agrees."""
        yield from self._on_any_device(self._answer)

    def _on_any_device(self, work: Callable[[], Iterator[Event]]) -> Iterator[Event]:
        if self.model.backend.copies_weights:
            self.autosave()
        try:
            yield from work()
        except BackendError as error:
            yield from map(Notice, self.fall_back(error))
            yield from work()
        if self.model.backend.copies_weights:
            self.autosave()  # with the answer

    def _answer(self) -> Iterator[Event]:
        if not self.messages or self.messages[-1]["role"] != "user":
            raise OptionError("there is no message to answer; send one, or use /continue or /retry")
        fitted = fit(self.formatter, self.messages, self.settings, self.summariser(self.loaded))
        self.formatter.history = fitted.history
        yield from map(Notice, fitted.notices)
        answer = self.formatter.answer(self.model, fitted.ids, self.settings, self.ui.cancelled, self.ui.progress)
        yield from self._receive(answer, {"role": "assistant", "content": ""})

    def retry(self) -> Iterator[Event]:
        """Answer the last message once more; the previous answer is kept if that fails."""
        at = self._last("user")
        before, history = self.messages[at + 1 :], self.formatter.history
        self.cut(at + 1)
        try:
            yield from self.answer()
        finally:
            if len(self.messages) == at + 1:
                self.messages += before
                self.formatter.history = history

    def say_instead(self, text: str) -> Iterator[Event]:
        """Another text for your last message; the old one and its answer are kept if that fails."""
        at, history = self._last("user"), self.formatter.history
        before = self.cut(at)
        try:
            yield from self.say(text)
        finally:
            if len(self.messages) == at:
                self.messages += before
                self.formatter.history = history

    def continue_(self) -> Iterator[Event]:
        """Go on with the last answer where it ended; as `answer`, on the CPU if a GPU fails."""
        yield from self._on_any_device(self._continue)

    def _continue(self) -> Iterator[Event]:
        if not self.messages or self.messages[-1]["role"] != "assistant":
            raise OptionError("there is no answer to continue")
        before, formatter, history = self.messages.pop(), self.formatter, self.formatter.history
        count = len(self.messages)
        formatter.history = clamp(history, self._last("user"))  # what was answered is shown
        try:
            resumed = formatter.format.resume(before, formatter.format.opened(formatter.ids(self.messages, self.settings)))
            fitted = fit(formatter, self.messages, self.settings, self.summariser(self.loaded), tail=resumed.tail)
            formatter.history = fitted.history
            yield from map(Notice, fitted.notices)
            goes_on = before, resumed
            answer = formatter.answer(self.model, fitted.ids, self.settings, self.ui.cancelled, self.ui.progress, goes_on)
            yield from self._receive(answer, dict(before))
        finally:
            if len(self.messages) == count:
                self.messages.append(before)
                formatter.history = history

    def _receive(self, answer: Answer, message: Message) -> Iterator[Event]:
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

    def _note(self, answer: Answer) -> None:
        self._stats = self.model, answer.stats.as_dict()
        if answer.stats.generated_tokens > 4:
            self.rates[str(self.model.path), self.model.weights.residency] = answer.stats.generate_rate

    # ---- the conversation ----

    def cut(self, count: int) -> list[Message]:
        """Keep the first `count` messages; the others are given back."""
        gone = self.messages[count:]
        del self.messages[count:]
        for each in (self.current, *self.parked):
            each.formatter.history = clamp(each.formatter.history, count)
        return gone

    def replace(self, messages: list[Message], settings: Settings | None = None, formatter: ChatFormatter | None = None) -> None:
        """Another conversation, with its settings and its formatter of the current model if it has any."""
        if self.messages:
            histories = [(each.formatter.tokenizer, each.formatter.history) for each in (self.current, *self.parked)]
            old_settings = self.settings if settings else None
            before = (self.messages, self.saved, self.attachments, histories, old_settings, self.formatter)
            self.replaced = [*self.replaced[1 - MAX_REPLACED :], Replaced(*before, list(messages))]
        self.messages, self.saved, self.attachments = messages, None, []
        self._stats = None, {}
        self.settings, self.current.formatter = settings or self.settings, formatter or self.formatter
        for each in (self.current, *self.parked):
            each.formatter.history = VisibleHistory()

    def go_back(self) -> bool:
        """Back to the conversation that the current one has replaced, if nothing else has been said since; whether it is."""
        if not self.replaced or self.messages != self.replaced[-1].after:
            return False
        old = self.replaced.pop()
        self.messages, self.saved, self.attachments = old.messages, old.saved, old.attachments
        if old.settings:
            same_model = old.formatter.tokenizer is self.formatter.tokenizer
            self.settings, self.current.formatter = old.settings, old.formatter if same_model else self.formatter
        for each in (self.current, *self.parked):
            kept = [history for tokenizer, history in old.histories if tokenizer is each.formatter.tokenizer]
            each.formatter.history = kept[0] if kept else VisibleHistory()
        return True

    def undo(self) -> list[Message]:
        """Take the last exchange back: your message and what came after it."""
        return self.cut(self._last("user"))

    def last_answer(self) -> str | None:
        """Its text, without thoughts."""
        found = [each["content"] for each in self.messages if each["role"] == "assistant"]
        return found[-1] if found else None

    def _last(self, role: str) -> int:
        found = [at for at, each in enumerate(self.messages) if each["role"] == role]
        if not found:
            raise OptionError("the conversation is empty")
        return found[-1]

    # ---- the model ----

    def summariser(self, loaded: OnDevice) -> Summarise:
        return lambda messages, before: summarise(loaded, messages, before, self.ui.cancelled, self.ui.progress)

    def drop_parked(self) -> None:
        """Let go of the models put aside."""
        while self.parked:
            self.parked.pop().model.close()

    @property
    def stats(self) -> dict[str, float]:
        """Of the last answer, as `Stats.as_dict`; empty if this conversation has none by the current model."""
        model, stats = self._stats
        return stats if isinstance(self.current, OnDevice) and self.current.model is model else {}

    def _tokens(self) -> int:
        """Of the conversation as the current model sees it; 0 if its template refuses it. Counted when something has changed."""
        formatter = self.formatter
        state = formatter, formatter.history, self.settings, [each["content"] for each in self.messages]
        if self._counted[0] != state:
            count = 0
            with contextlib.suppress(LacewingError):
                count = len(formatter.ids(self.messages, self.settings, generation=False)) if formatter.sees(self.messages) else 0
            self._counted = state, count
        return self._counted[1]

    def status(self) -> Status:
        residency, backend = "closed", "no backend"
        if isinstance(self.current, OnDevice):
            residency, backend = self.current.model.weights.residency, self.current.model.backend.name
        return Status(
            model=self.current.short_name,
            template=self.formatter.template.name,
            residency=residency,
            backend=backend,
            used_tokens=self._tokens(),
            context=self.current.info.spec.context,
            tokens_per_second=self.stats.get("generate_tokens_per_second", 0.0),
            code=self.settings.code,
        )

    def change(self, **fields: Any) -> None:
        """Change settings. Raises OptionError for values out of range."""
        self.settings = dataclasses.replace(self.settings, **fields)

    def close(self) -> None:
        self.drop_parked()
        if isinstance(self.current, OnDevice):
            self.current.model.close()
