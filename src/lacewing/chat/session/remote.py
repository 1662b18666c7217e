"""A conversation with a model that a server has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lacewing.chat.client.answers import RemoteAnswer, models, request
from lacewing.chat.client.connection import Connection
from lacewing.chat.session.conversation import Conversation, Streamed
from lacewing.chat.session.events import Event, Notice, Status, Ui
from lacewing.chat.session.formatter import VisibleHistory, visible
from lacewing.chat.session.overflow import SUMMARISE, clamp
from lacewing.chat.session.settings import Message, Settings
from lacewing.errors import Cancelled, ContextOverflowError, OptionError
from lacewing.options import Sampling, counted

SUMMARY_TOKENS = 256


class RemoteSession(Conversation):
    """One conversation with a server's models. `model`: what `/v1/models` told of the one that answers.

    The server renders the messages; when it says that they do not fit its context, the policy decides what is hidden from it.
    """

    def __init__(self, connection: Connection, name: str | None = None, settings: Settings | None = None, ui: Ui | None = None):
        """Raises ServerError, and OptionError for a model that the server does not have."""
        super().__init__(settings, ui)
        self.connection = connection
        self.listed = models(connection, self.ui.cancelled)
        self.model = self.find(name)
        self._history = VisibleHistory()
        self._stats: dict[str, float] = {}
        self.before_lazy: dict[str, str] = {}  # by model: the residency that /lazy found

    def find(self, name: str | None) -> dict[str, Any]:
        """A model of the server by its name; without one its default, or the first. Raises OptionError."""
        if name is None:
            return next((each for each in self.listed if each.get("default")), self.listed[0])
        found = [each for each in self.listed if each["id"] == name]
        if not found:
            names = ", ".join(each["id"] for each in self.listed[:20])
            raise OptionError(f"{self.place} has no model {name!r}; it has {names}")
        return found[0]

    def refresh(self) -> None:
        """Ask again what the server has. Raises ServerError."""
        self.listed = models(self.connection, self.ui.cancelled)
        self.model = next((each for each in self.listed if each["id"] == self.name), self.model)

    @property
    def name(self) -> str:
        return str(self.model["id"])

    @property
    def place(self) -> str:
        return self.connection.address

    @property
    def context(self) -> int:
        """Tokens; 0 if the server does not tell."""
        meta = self.model.get("meta")
        found = self.model.get("context") or (meta.get("n_ctx") if isinstance(meta, dict) else 0) or self.model.get("max_model_len")
        return found if isinstance(found, int) else 0

    # ---- talking ----

    def answer(self) -> Iterator[Event]:
        if not self.messages or self.messages[-1]["role"] != "user":
            raise OptionError("there is no message to answer; send one, or use /continue or /retry")
        yield from self._fitting({"role": "assistant", "content": ""}, len(self.messages))

    def continue_(self) -> Iterator[Event]:
        """Servers go on with a last message that is the assistant's: Lacewing and llama-server do; others may begin anew."""
        if not self.messages or self.messages[-1]["role"] != "assistant":
            raise OptionError("there is no answer to continue")
        before = self.messages.pop()
        count = len(self.messages)
        try:
            yield from self._fitting(dict(before), count, begun=before)
        finally:
            if len(self.messages) == count:
                self.messages.append(before)

    def _fitting(self, message: Message, count: int, begun: Message | None = None) -> Iterator[Event]:
        """The answer, once what the server sees of the conversation fits its context."""
        asked, history = [*self.messages, *([begun] if begun else [])], self.history
        try:
            while True:
                messages = visible(asked, self.settings, self.history)
                body = request(self.name, messages, self.settings.sampling, self.settings.chat_options())
                try:
                    yield from self._receive(RemoteAnswer(self.connection, body, self.ui.cancelled), message)
                    return
                except ContextOverflowError as error:
                    if len(self.messages) > count:  # it was full in the middle of the answer
                        raise
                    yield Notice(self._hide(asked, error))
        finally:
            if len(self.messages) == count:  # nothing came: what was hidden to make room is shown again
                self.history = history

    def _hide(self, asked: list[Message], error: ContextOverflowError) -> str:
        """Hide the oldest turns, half of those that are shown, by the policy; a line about it. Raises ContextOverflowError."""
        turns = [at for at, each in enumerate(asked) if each["role"] == "user" and at > self.history.hidden]
        if self.settings.overflow == "stop" or not turns:
            hint = "/context drop-oldest or /context summarise makes room, /clear starts a new conversation"
            raise ContextOverflowError(f"{error}; {hint if turns else 'shorten the message'}") from None
        hidden = turns[(len(turns) - 1) // 2]
        summary, what = self.history.summary, "hidden from the model"
        if self.settings.overflow == "summarise":
            summary, what = self._summary(asked[self.history.hidden : hidden], summary), "summarised for the model"
        self.history = VisibleHistory(hidden, summary)
        them = "the first message is" if hidden == 1 else f"the first {hidden} messages are"
        return f"the context is full: {them} {what}, the conversation keeps {'it' if hidden == 1 else 'them'}"

    def _summary(self, messages: list[Message], before: str | None) -> str:
        """The model's own. Raises Cancelled, ServerError."""
        limit = min(SUMMARY_TOKENS, max(16, self.context // 8)) if self.context else SUMMARY_TOKENS
        lines = ([f"Earlier: {before}"] if before else []) + [f"{each['role']}: {each['content']}" for each in messages]
        text, settings = "\n".join(lines), Settings(Sampling(temperature=0, max_tokens=limit), thinking=False)
        while True:
            asked = [{"role": "user", "content": SUMMARISE + text}]
            body = request(self.name, asked, settings.sampling, settings.chat_options())
            answer = RemoteAnswer(self.connection, body, self.ui.cancelled)
            try:
                summary = "".join(answer)
                break
            except ContextOverflowError:
                if not text:
                    raise
                text = text[: max(0, len(text) * 3 // 4 - 1)]
        if answer.finish_reason == "cancelled":
            raise Cancelled("the summary was cancelled; nothing was changed")
        return " ".join(summary.split())

    def _note(self, answer: Streamed) -> None:
        self._stats = answer.stats.as_dict()

    # ---- what is shown ----

    @property
    def stats(self) -> dict[str, float]:
        return self._stats

    @property
    def history(self) -> VisibleHistory:
        return self._history

    @history.setter
    def history(self, history: VisibleHistory) -> None:
        self._history = history

    def _clamp(self, count: int) -> None:
        self._history = clamp(self._history, count)

    def _shown(self) -> VisibleHistory:
        return self._history

    def _show(self, shown: VisibleHistory | None, settings: bool) -> None:
        self._history = shown or VisibleHistory()
        self._stats = {}

    def use(self, model: dict[str, Any]) -> None:
        """Another model of the server answers from now on."""
        self.model, self._stats = model, {}

    def status(self) -> Status:
        used = int(self._stats.get("prompt_tokens", 0) + self._stats.get("generated_tokens", 0))
        return Status(
            model=self.name,
            template=str(self.model.get("template") or ""),
            residency=str(self.model.get("residency") or ""),
            backend=self.place.partition("://")[2],
            used_tokens=used,
            context=self.context,
            tokens_per_second=self._stats.get("generate_tokens_per_second", 0.0),
            code=self.settings.code,
        )

    def described(self) -> str:
        """The model, where it is, and how large its context is as far as the server tells."""
        return f"{self.name} at {self.place}" + (f", {counted(self.context, 'token')}" if self.context else "")

    def close(self) -> None:
        self.connection.close()
