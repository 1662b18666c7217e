"""What a caller chooses for an answer beside how its tokens are chosen. Frozen, checked when made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from lacewing.assistant.grammar.choices import Bound, GrammarArguments, take_grammar
from lacewing.assistant.grammar.source import Grammar
from lacewing.errors import OptionError
from lacewing.options import Sampling, SamplingArguments, make_sampling, native, shown_value
from lacewing.text.reasoning import EFFORTS

MAX_ARGUMENTS = 64  # of a template
# Variables and functions of templates that a caller's arguments may not replace.
RESERVED = frozenset(
    ("messages", "tools", "add_generation_prompt", "bos_token", "eos_token", "range", "raise_exception", "strftime_now", "dict",
     "namespace", "cycler", "joiner")
)  # fmt: skip


@dataclass(frozen=True)
class ChatOptions:
    """How a conversation is answered.

    `tools`: definitions as OpenAI's API takes them. `tool_choice`: "auto", "none", "required", or the name of a tool.
    `constraint`: a grammar that the text of the answer must follow, or what makes a constraint for each answer anew.
    `reasoning_effort`: one of EFFORTS, passed on as the variables that the template knows. `reasoning_budget`: tokens of thoughts,
    after which the answer itself is begun. `template_arguments`: other variables of the template, such as enable_thinking.
    `continue_final`: the last message is the assistant's, and the answer goes on where it ends.
    """

    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: str = "auto"
    parallel_tool_calls: bool = True
    constraint: Bound | None = None
    reasoning_effort: str | None = None
    reasoning_budget: int | None = None
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    continue_final: bool = False

    def __post_init__(self) -> None:
        if self.reasoning_effort is not None and self.reasoning_effort not in EFFORTS:
            raise OptionError(f"`reasoning_effort` is {shown_value(self.reasoning_effort)}; it must be one of {', '.join(EFFORTS)}")
        budget = self.reasoning_budget
        if budget is not None and (isinstance(budget, bool) or not isinstance(budget, int) or not 0 <= budget <= 2**31):
            raise OptionError(f"`reasoning_budget` is {shown_value(budget)}; it must be an integer from 0 to {2**31}")
        given = self.template_arguments
        if not isinstance(given, Mapping):
            raise OptionError(f"`template_arguments` is {shown_value(given)}; it must be a dict of names of variables and values")
        # a server's clients know these by another name
        if odd := [name for name in given if not isinstance(name, str) or not name.isidentifier()]:
            raise OptionError(f"{shown_value(odd[0])} cannot be the name of a template variable")
        if reserved := RESERVED.intersection(given):
            raise OptionError(f"the template variable {min(reserved)!r} is not for callers to set")
        if len(given) > MAX_ARGUMENTS:
            raise OptionError(f"{len(given)} template variables were given; at most {MAX_ARGUMENTS} are accepted")
        if not isinstance(self.continue_final, bool):
            raise OptionError(f"`continue_final` is {shown_value(self.continue_final)}; it must be true or false")


class TextArguments(SamplingArguments, GrammarArguments, total=False):
    """The keyword arguments of `generate` and `stream`: what the text must look like, and the fields of `Sampling`."""


class ChatArguments(SamplingArguments, GrammarArguments, total=False):
    """The keyword arguments of `chat`: what the answer must look like, and the fields of `ChatOptions` and of `Sampling`."""

    tools: Sequence[Mapping[str, Any]]
    tool_choice: str
    parallel_tool_calls: bool
    constraint: Bound | None
    reasoning_effort: str | None
    reasoning_budget: int | None
    template_arguments: Mapping[str, Any]
    continue_final: bool


def make_chat_options(options: Mapping[str, Any]) -> tuple[ChatOptions, Sampling]:
    """Both from keyword arguments. Raises OptionError, GrammarError."""
    grammar, options = _taken(options)
    names = [each.name for each in fields(ChatOptions)]
    chosen = {name: native(value) for name, value in options.items() if name in names}
    sampling = {name: value for name, value in options.items() if name not in names}
    if grammar is not None:
        if chosen.get("constraint") is not None:
            raise OptionError("`constraint` excludes `json`, `json_schema`, `regex` and `grammar`; give one of them")
        chosen["constraint"] = grammar
    return ChatOptions(**chosen), make_sampling(sampling)


def make_text_options(options: Mapping[str, Any]) -> tuple[Grammar | None, Sampling]:
    """What a text must look like, and how its tokens are chosen, from keyword arguments. Raises OptionError, GrammarError."""
    grammar, options = _taken(options)
    return grammar, make_sampling(options)


def _taken(options: Mapping[str, Any]) -> tuple[Grammar | None, dict[str, Any]]:
    left = dict(options)
    return take_grammar(left), left
