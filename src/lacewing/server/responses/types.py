"""Typed requests for responses, and what they ask of the assistant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from lacewing.assistant.grammar.source import Grammar
from lacewing.assistant.options import ChatOptions
from lacewing.options import Sampling
from lacewing.server.openai.bodies import NamedModelBody, Penalty, ReasoningEffort
from lacewing.server.openai.chat import MAX_TOP
from lacewing.server.openai.errors import RequestError
from lacewing.server.openai.fields import Refused
from lacewing.server.openai.messages import Given
from lacewing.server.responses.items import Items
from lacewing.server.responses.tools import CUSTOM, ChosenTool, ToolDefinition

LOGPROBS, SEALED = "message.output_text.logprobs", "reasoning.encrypted_content"
MAX_METADATA, MAX_KEY, MAX_VALUE = 16, 64, 512  # pairs, characters
IGNORED: Mapping[str, str] = {
    "user": "names an end user for OpenAI's abuse detection",
    "safety_identifier": "likewise",
    "prompt_cache_key": "the prefix cache finds prompts by their tokens",
    "prompt_cache_retention": "the prefix cache keeps what was used last",
    "prompt_cache_options": "likewise",
    "service_tier": "there is one tier",
    "stream_options": "nothing is obfuscated",
    "max_tool_calls": "it counts calls of tools that OpenAI's servers run",
    "client_metadata": "Codex's; nothing depends on it",
}
REFUSED: Mapping[str, Refused] = {
    "prompt": Refused((), "there are no prompts that are kept apart; send `instructions` and `input`"),
    "context_management": Refused(([],), "conversations are not changed here; `truncation` may drop what is oldest"),
    "moderation": Refused((), "nothing is moderated here"),
}


class TextFormat(Given):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    described: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None

    @property
    def told(self) -> dict[str, Any]:
        """As the response shows it."""
        if self.type != "json_schema":
            return {"type": self.type}
        return {"type": self.type, "name": self.name or "", "description": self.description, "schema": self.described,
                "strict": bool(self.strict)}  # fmt: skip

    @property
    def grammar(self) -> Grammar | None:
        """None: any text. Raises GrammarError, RequestError."""
        if self.type == "json_schema":
            if self.described is None:
                where = "text.format.schema"
                raise RequestError(f"you must provide `{where}`", where, code="missing_required_parameter")
            return Grammar.json_schema(self.described)
        return Grammar.json_object() if self.type == "json_object" else None


class TextOptions(Given):
    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningOptions(Given):
    effort: ReasoningEffort | Literal["max"] | None = None
    summary: Literal["auto", "concise", "detailed", "none"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None

    @property
    def summarised(self) -> str | None:
        """Which summary is wanted; None: none."""
        wanted = self.summary or self.generate_summary
        return None if wanted == "none" else wanted


class ConversationReference(Given):
    id: str


class ResponseBody(NamedModelBody):
    """What a response is asked for with."""

    refused: ClassVar[Mapping[str, Refused]] = REFUSED

    input: str | Items | None = Field(
        None, description="text, or a list of items: message, function_call, function_call_output, reasoning, item_reference"
    )
    instructions: str | None = Field(None, description="a system message for this response alone, before all others")
    previous_response_id: str | None = Field(None, description="a stored response that this one goes on from")
    conversation: str | ConversationReference | None = Field(
        None, description="a conversation, whose items stand before `input` and which takes up those of this response"
    )
    store: bool | None = Field(None, description="default true: the response is kept on disk, unless the server keeps none")
    background: bool | None = Field(None, description='answer at once with the status "queued", and go on without the client')
    stream: bool | None = Field(None, description="server-sent events instead of one JSON object")
    tools: list[ToolDefinition] | None = Field(
        None,
        description="tools of the types function and custom, whose grammar is told to the model and not enforced; those that "
        "OpenAI's servers run are refused",
    )
    tool_choice: Literal["auto", "none", "required"] | ChosenTool | None = Field(
        None, description='"auto", "none", "required", {"type": "function", "name": ...} or {"type": "allowed_tools", ...}'
    )
    parallel_tool_calls: bool | None = Field(None, description="default true: several calls in one answer")
    text: TextOptions | None = Field(None, description='`format`: "text", "json_object", or "json_schema" that the text follows')
    reasoning: ReasoningOptions | None = Field(
        None, description="`effort`, for templates that know it; with `summary` the thoughts themselves are told as their summary"
    )
    include: list[str] | None = Field(
        None, description=f"`{LOGPROBS}`, `{SEALED}`; the others belong to tools that this server does not have"
    )
    max_output_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = Field(
        None, description="tokens of the answer, thoughts among them; by default to the end of the context"
    )
    truncation: Literal["auto", "disabled"] | None = Field(
        None, description='"auto" drops the oldest turns of a conversation that is too long; by default it is refused'
    )
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(None, description="0 takes the likeliest token; default 0.8")
    top_p: Annotated[float, Field(ge=0, le=1)] | None = Field(None, description="default 0.95")
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = Field(None, description="default 40; 0 or -1: off")
    min_p: Annotated[float, Field(ge=0, le=1)] | None = Field(None, description="default 0.05; 0: off")
    presence_penalty: Penalty | None = Field(None, description="-2 to 2; default 0")
    frequency_penalty: Penalty | None = Field(None, description="-2 to 2; default 0")
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = Field(None, description="the same seed gives the same answer")
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP)] | None = Field(
        None, description="0 to 20 likeliest tokens beside each one"
    )
    metadata: dict[str, str] | None = Field(None, description="16 pairs of texts, kept with the response")
    chat_template_kwargs: dict[str, Any] | None = Field(None, description="variables of the template, such as `enable_thinking`")

    @field_validator("metadata")
    @classmethod
    def _check_metadata(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        return checked_metadata(value)

    @property
    def streamed(self) -> bool:
        return bool(self.stream)

    @property
    def conversation_id(self) -> str | None:
        given = self.conversation
        return given.id if isinstance(given, ConversationReference) else given

    @property
    def top(self) -> int | None:
        """Likeliest tokens beside each one; None: no log-probabilities."""
        wanted = self.top_logprobs or LOGPROBS in (self.include or ())
        return (self.top_logprobs or 0) if wanted else None

    @property
    def summary(self) -> str | None:
        """Which summary of thoughts is wanted; None: none."""
        return None if self.reasoning is None else self.reasoning.summarised

    @property
    def sampling(self) -> Sampling:
        """How tokens are chosen."""
        names = ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "seed")
        given: dict[str, Any] = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.max_output_tokens is not None:
            given["max_tokens"] = self.max_output_tokens
        return Sampling(**given, logprobs=0 if self.top is None else max(1, self.top))

    @property
    def options(self) -> ChatOptions:
        """For the assistant. Raises RequestError, OptionError, GrammarError."""
        form = self.text.format if self.text is not None else None
        effort = None if self.reasoning is None else self.reasoning.effort
        definitions = [tool.definition(f"tools[{place}]") for place, tool in enumerate(self.tools or ())]
        chosen = self.tool_choice
        choice, definitions = chosen.among(definitions) if isinstance(chosen, ChosenTool) else (chosen or "auto", definitions)
        return ChatOptions(
            tools=definitions,
            tool_choice=choice,
            parallel_tool_calls=self.parallel_tool_calls is not False,
            constraint=None if form is None else form.grammar,
            reasoning_effort="high" if effort in ("xhigh", "max") else effort,
            template_arguments=self.chat_template_kwargs or {},
        )

    @property
    def custom(self) -> frozenset[str]:
        """The names of tools that take a text."""
        return frozenset(tool.name for tool in self.tools or () if tool.type == CUSTOM and tool.name is not None)


def checked_metadata(value: dict[str, str] | None) -> dict[str, str] | None:
    """Raises ValueError for more than OpenAI takes."""
    if value and (len(value) > MAX_METADATA or any(len(key) > MAX_KEY or len(text) > MAX_VALUE for key, text in value.items())):
        raise ValueError(f"at most {MAX_METADATA} pairs, of {MAX_KEY} and {MAX_VALUE} characters, are accepted")
    return value
