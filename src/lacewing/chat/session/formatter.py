"""Renders a conversation for a model: its tokenizer, a template, and the part of the conversation that is visible."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lacewing.assistant.answer import Answer
from lacewing.assistant.format import ChatFormat, Resumed, Tail
from lacewing.assistant.prompt import Prompt
from lacewing.chat.session.settings import EDIT_INSTRUCTIONS, Message, Settings
from lacewing.errors import TemplateError
from lacewing.text.template import ChatTemplate

if TYPE_CHECKING:
    from lacewing.api import Model
    from lacewing.placement.info import ModelInfo
    from lacewing.text.tokenizer import Tokenizer

_SUMMARY = "Summary of the conversation so far: "


@dataclass(frozen=True)
class VisibleHistory:
    """The part of a conversation that a model sees: all but the first `hidden` messages, which a summary may replace."""

    hidden: int = 0
    summary: str | None = None


def visible(messages: Sequence[Message], settings: Settings, history: VisibleHistory) -> list[Message]:
    """The messages for a template: system text, summary, and those that are not hidden."""
    parts = (settings.system, settings.code and EDIT_INSTRUCTIONS, history.summary and _SUMMARY + history.summary)
    system = "\n\n".join(text for text in parts if text)
    first = [{"role": "system", "content": system}] if system else []
    return first + [{"role": each["role"], "content": each["content"]} for each in messages[history.hidden :]]


class ChatFormatter:
    """Messages to ids. `choice`: how the template was chosen: "auto", a name or a path. Pure, but for `history`."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate, choice: str, context: int):
        self.tokenizer, self.template, self.choice, self.context = tokenizer, template, choice, context
        self.format = ChatFormat(tokenizer, template)
        self.history = VisibleHistory()

    def with_template(self, template: ChatTemplate, choice: str) -> ChatFormatter:
        """The same model with another template."""
        other = ChatFormatter(self.tokenizer, template, choice, self.context)
        other.history = self.history
        return other

    def sees(self, messages: Sequence[Message]) -> bool:
        """Whether any message is visible to the model: the last ones may have been removed."""
        return len(messages) > self.history.hidden

    def visible(self, messages: Sequence[Message], settings: Settings, history: VisibleHistory | None = None) -> list[Message]:
        """The messages for the template: system text, summary, and those that are not hidden."""
        return visible(messages, settings, history or self.history)

    def ids(
        self,
        messages: Sequence[Message],
        settings: Settings,
        *,
        history: VisibleHistory | None = None,
        generation: bool = True,
        tail: Tail = (),
    ) -> list[int]:
        """The prompt. Raises TemplateError if the template refuses the conversation."""
        shown, options = self.visible(messages, settings, history), self.options(settings)
        return self.template.encode(shown, self.tokenizer, add_generation_prompt=generation, tail=tail, **options)

    def text(self, messages: Sequence[Message], settings: Settings, history: VisibleHistory | None = None) -> str:
        """The prompt for people to read."""
        return self.template.render(self.visible(messages, settings, history), **self.options(settings))

    def options(self, settings: Settings) -> dict[str, Any]:
        """Variables for the template; families name this switch differently."""
        effort = settings.chat_options().reasoning_effort
        return {} if effort is None else self.format.effort.of(effort)

    def answer(
        self,
        model: Model,
        ids: Sequence[int],
        settings: Settings,
        cancelled: Callable[[], bool],
        progress: Callable[[str, int, int], None] | None = None,
        resumed: tuple[Message, Resumed] | None = None,
    ) -> Answer:
        """The model's answer to a prompt. `resumed`: the message that it goes on with, whose text the prompt has at its end."""
        form, options = self.format, self.options(settings)
        shared = form.shared(model.engine, [self.visible([], settings)], ids, **options)
        begun, (_, tag, answering) = resumed or (None, Resumed([], form.opened(ids), False))
        splitter = form.splitter(tag, answering=answering)
        constrain = form.constrain(model.engine.vocab_size, settings.chat_options(), ids, tag, answering=answering)
        prompt = Prompt(ids, form.stop_ids, lambda sampling: form.decoder(splitter, sampling, begun), shared, constrain)
        return prompt.answer(model.engine, settings.sampling, cancelled, progress)


def open_formatter(opened: ModelInfo, notices: list[str], cancelled: Callable[[], bool] | None = None) -> ChatFormatter:
    """Tokenizer and template of a checkpoint. Raises TokenizerError, Cancelled, and TemplateError for one that is damaged."""
    tokenizer = opened.tokenizer.result(cancelled)
    try:
        template = opened.template.result(cancelled)
    except TemplateError:
        template = ChatTemplate.named("raw", tokenizer)
    notices += opened.chat_notices
    return ChatFormatter(tokenizer, template, "auto", opened.spec.context)
