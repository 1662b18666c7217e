"""How one model uses tools under one template: what it is shown, how its answer is read, how a call is made sure of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lacewing.assistant.tools import history
from lacewing.assistant.tools.choosing import DEFAULT, by_text
from lacewing.assistant.tools.definitions import AUTO, NONE, REQUIRED, Tool, Tools, checked, choice
from lacewing.assistant.tools.formats import harmony
from lacewing.assistant.tools.grammar import calls
from lacewing.assistant.tools.manner import Manner, find
from lacewing.assistant.tools.splitter import CallSplitter, ThoughtSplitter
from lacewing.errors import GrammarError
from lacewing.text.reasoning import TAGS

if TYPE_CHECKING:
    from lacewing.assistant.grammar.compiled import Compiled
    from lacewing.assistant.options import ChatOptions
    from lacewing.assistant.tools.format import Format
    from lacewing.text.template import ChatTemplate
    from lacewing.text.tokenizer import Tokenizer

MAX_SCHEMA_DEPTH = 64
Message = Mapping[str, Any]


class ToolRequest:
    """The tools of one request. Raises OptionError for definitions and choices that are none.

    `tools`: those that the model may call now, `shown`: those that it is shown, `must`: whether it has to call one, `bound`:
    whether a grammar makes sure of its calls, because it must make one or because of tools that are strict.
    """

    def __init__(self, options: ChatOptions):
        every = checked(options.tools)
        wanted = choice(options.tool_choice, every)
        self.shown = Tools() if wanted == NONE else every
        self.tools = Tools([every[wanted]]) if wanted in every and wanted not in (AUTO, NONE, REQUIRED) else self.shown
        self.must = wanted not in (AUTO, NONE)
        self.bound = self.must or any(tool.strict for tool in self.tools.values())
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

    @property
    def whole(self) -> bool:
        """Whether calls are read from all of an answer, as thoughts, text and calls are messages alike."""
        return self.form.name == harmony.FORMAT.name

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
        parser = self.form.parser(request.tools, tuple(TAGS.values()), request.must)
        certain = all(mark in self._tokenizer.control_tokens for mark in parser.marks)
        return CallSplitter(self.form, parser, None if self.whole else thoughts, certain=certain, parallel=request.parallel)

    def compiled(self, request: ToolRequest, vocab_size: int, *, free: bool) -> Compiled:
        """The grammar of an answer whose calls are bound: of what stands behind the thoughts, or of a `whole` answer. `free`: it
        may be text as well.

        Raises GrammarError for schemas that cannot be followed, and without llguidance.
        """
        from lacewing.assistant.grammar.compiled import compile_grammar
        from lacewing.assistant.grammar.source import Grammar

        for tool in request.tools.values():
            check_parameters(tool)
        text = calls(
            self.form, list(request.tools.values()), self.tokens, parallel=request.parallel, free=free,
            thoughts=harmony.THOUGHTS if self.whole else None,
        )  # fmt: skip
        return compile_grammar(Grammar.lark(text), self._tokenizer, vocab_size)


def check_parameters(tool: Tool) -> None:
    """Raises GrammarError if nothing satisfies a tool's schema, or it cannot be enforced."""
    from lacewing.assistant.grammar.schema import check_schema

    try:
        check_schema(dict(tool.parameters), MAX_SCHEMA_DEPTH)
    except GrammarError as error:
        raise GrammarError(f"the parameters of {tool.name}: {error}") from None
