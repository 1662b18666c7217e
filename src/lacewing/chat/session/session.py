"""A conversation with a model of this machine, both of which may change."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from lacewing.api import Model
from lacewing.chat.session.conversation import Conversation, Streamed
from lacewing.chat.session.events import Event, Notice, Status, Ui
from lacewing.chat.session.formatter import ChatFormatter, VisibleHistory, open_formatter
from lacewing.chat.session.models import Closed, OnDevice, Parked
from lacewing.chat.session.overflow import Summarise, clamp, fit, summarise
from lacewing.chat.session.settings import Message, Settings
from lacewing.errors import BackendError, LacewingError, OptionError
from lacewing.options import LoadOptions


@dataclass(frozen=True)
class _Shown:
    """A formatter, and the visible history of each model by its tokenizer."""

    formatter: ChatFormatter
    histories: list[tuple[Any, VisibleHistory]]


def _raise(error: BackendError) -> list[str]:
    raise error


class Session(Conversation):
    """One conversation with models of this machine. `current` answers, `parked` are those that `/model -` goes back to, the
    latest first.

    Whoever opens it may set two callbacks: `autosave`, and `fall_back(error)`, which brings the session to another backend after a
    GPU failed, and returns what a person should know of it; it raises the error again where that is not wanted.
    """

    def __init__(self, model: Model, settings: Settings | None = None, *, ui: Ui | None = None, name: str | None = None):
        super().__init__(settings, ui)
        self.parked: list[Parked] = []
        self.options: LoadOptions = model.options
        formatter = open_formatter(model.info, self.notices, self.ui.cancelled)
        self.current: OnDevice | Closed = OnDevice(formatter, name or str(model.path), model)
        self._stats: tuple[Model | None, dict[str, float]] = None, {}  # of the last answer, and who gave it
        self._counted: tuple[Any, int] = None, 0  # a state of the conversation, and its tokens
        self.rates: dict[tuple[str, str], float] = {}  # generated tokens/s by (path, residency)
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

    def _note(self, answer: Streamed) -> None:
        self._stats = self.model, answer.stats.as_dict()
        if answer.stats.generated_tokens > 4:
            self.rates[str(self.model.path), self.model.weights.residency] = answer.stats.generate_rate

    # ---- the messages ----

    @property
    def history(self) -> VisibleHistory:
        return self.formatter.history

    @history.setter
    def history(self, history: VisibleHistory) -> None:
        self.formatter.history = history

    def _clamp(self, count: int) -> None:
        for each in (self.current, *self.parked):
            each.formatter.history = clamp(each.formatter.history, count)

    def replace(self, messages: list[Message], settings: Settings | None = None, formatter: ChatFormatter | None = None) -> None:
        """Another conversation, with its settings and its formatter of the current model if it has any."""
        super().replace(messages, settings)
        self._stats = None, {}
        self.current.formatter = formatter or self.formatter
        self._show(None, False)

    def _shown(self) -> _Shown:
        models = (self.current, *self.parked)
        return _Shown(self.formatter, [(each.formatter.tokenizer, each.formatter.history) for each in models])

    def _show(self, shown: _Shown | None, settings: bool) -> None:
        if shown and settings and shown.formatter.tokenizer is self.formatter.tokenizer:
            self.current.formatter = shown.formatter
        for each in (self.current, *self.parked):
            kept = [history for tokenizer, history in (shown.histories if shown else ()) if tokenizer is each.formatter.tokenizer]
            each.formatter.history = kept[0] if kept else VisibleHistory()

    # ---- the model ----

    def summariser(self, loaded: OnDevice) -> Summarise:
        return lambda messages, before: summarise(loaded, messages, before, self.ui.cancelled, self.ui.progress)

    def drop_parked(self) -> None:
        """Let go of the models put aside."""
        while self.parked:
            self.parked.pop().model.close()

    @property
    def name(self) -> str:
        return self.current.info.spec.name

    @property
    def place(self) -> str:
        return str(self.current.info.checkpoint.path.absolute())

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

    def described(self) -> str:
        status = self.status()
        return f"{status.model}, {status.residency}, {status.backend}, {status.context} tokens"

    def close(self) -> None:
        self.drop_parked()
        if isinstance(self.current, OnDevice):
            self.current.model.close()
