"""How one model uses tools under one template: what it is shown, how its answer is read, how a call is made sure of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lacewing.assistant.tools import history
from lacewing.assistant.tools.choosing import DEFAULT, by_text
from lacewing.assistant.tools.definitions import AUTO, NONE, REQUIRED, Tools, checked, choice
from lacewing.assistant.tools.formats import harmony
from lacewing.assistant.tools.grammar import calls
from lacewing.assistant.tools.manner import Manner, find
from lacewing.assistant.tools.splitter import CallSplitter, ThoughtSplitter
from lacewing.text.reasoning import TAGS

if TYPE_CHECKING:
    from lacewing.assistant.options import ChatOptions
    from lacewing.assistant.tools.format import Format
    from lacewing.text.template import ChatTemplate
    from lacewing.text.tokenizer import Tokenizer

Message = Mapping[str, Any]


class ToolRequest:
    """The tools of one request. Raises OptionError for definitions and choices that are none.

    `tools`: those that the model may call now, `shown`: those that it is shown, `must`: whether it has to call one.
    """

    def __init__(self, options: ChatOptions):
        every = checked(options.tools)
        wanted = choice(options.tool_choice, every)
        self.shown = Tools() if wanted == NONE else every
        self.tools = Tools([every[wanted]]) if wanted in every and wanted not in (AUTO, NONE, REQUIRED) else self.shown
        self.must = wanted not in (AUTO, NONE)
        self.parallel = options.parallel_tool_calls

    @classmethod
    def of(cls, options: ChatOptions) -> ToolRequest | None:
        """None where nothing may be called."""
        made = cls(options)
        return made if made.shown else None


class ToolUse:
    """A tokenizer with a template."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate):
        self._tokenizer, self._template = tokenizer, template

    @cached_property
    def _found(self) -> tuple[Format, Manner]:
        form = by_text(self._template.variants.get("tool_use", self._template).source)
        manner = find(self._template.render, history.any_id if form is None else form.past_id, form)
        return (DEFAULT if form is None or manner.as_text else form), manner

    @property
    def form(self) -> Format:
        """How the model writes calls."""
        return self._found[0]

    @property
    def manner(self) -> Manner:
        """How the template takes them."""
        return self._found[1]

    def messages(self, messages: Sequence[Message], request: ToolRequest | None) -> Sequence[Message]:
        """A conversation as the template takes it. Raises TemplateError for calls that are none."""
        if not isinstance(messages, Sequence) or isinstance(messages, str):
            return messages  # the template says what is wrong
        if request is None and not any(map(history.concerns, messages)):
            return messages
        form, manner = self._found
        found = manner.messages(history.normalised(messages, form.past_id))
        if request is None or not manner.told:
            return found
        told = "\n".join(json.dumps(each, ensure_ascii=False) for each in request.shown.definitions)
        return manner.tell(found, form.told.replace("{tools}", told))

    def variables(self, request: ToolRequest | None) -> dict[str, Any]:
        """For the template."""
        return {} if request is None or self.manner.told else {"tools": request.shown.definitions}

    @cached_property
    def tokens(self) -> dict[str, int]:
        """The marks of calls that are control tokens and otherwise no text."""
        control = self._tokenizer.control_tokens
        return {mark: control[mark] for mark in self.form.marks if mark in control and not self._tokenizer.decode([control[mark]])}

    @property
    def begins(self) -> tuple[str, ...]:
        """What calls begin with."""
        return self.form.parser.marks

    def splitter(self, request: ToolRequest, thoughts: ThoughtSplitter | None) -> CallSplitter:
        """For an answer; `thoughts` tells apart what is no call."""
        parser = self.form.parser(request.tools, tuple(TAGS.values()))
        certain = all(mark in self._tokenizer.control_tokens for mark in parser.marks)
        whole = self.form.name == harmony.FORMAT.name
        return CallSplitter(self.form, parser, None if whole else thoughts, certain=certain, parallel=request.parallel)

    def grammar(self, request: ToolRequest) -> str:
        """Of an answer that must be calls, in llguidance's Lark: of what stands behind the thoughts, or of harmony all."""
        thoughts = harmony.THOUGHTS if self.form.name == harmony.FORMAT.name else None
        return calls(self.form, list(request.tools.values()), self.tokens, parallel=request.parallel, thoughts=thoughts)
