"""Typed requests of Anthropic's API, and what they ask of the assistant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from lacewing.assistant.grammar.source import Grammar
from lacewing.assistant.options import ChatOptions
from lacewing.assistant.prompt import Prompt
from lacewing.assistant.reply import Assistant
from lacewing.options import Sampling
from lacewing.server.anthropic.messages import Messages, System, plain
from lacewing.server.openai.bodies import MAX_STOPS, NamedModelBody, StopString
from lacewing.server.openai.errors import RequestError
from lacewing.server.openai.fields import Refused
from lacewing.server.openai.messages import Given

Count = Annotated[int, Field(ge=0, lt=2**31)]
_EFFORTS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
# Nothing of an answer depends on them here; like all unknown fields they are ignored.
IGNORED: Mapping[str, str] = {
    "cache_control": "prompts are always cached, and prefixes found by their tokens",
    "metadata": "names an end user",
    "service_tier": "there is one tier",
    "context_management": "conversations are not changed here; a prompt that is too long is refused",
    "inference_geo": "answers are made on this machine",
    "speed": "there is one speed",
    "diagnostics": "`usage` tells what was found in the cache",
    "betas": "as the header `anthropic-beta`, which may say anything",
}
REFUSED: Mapping[str, Refused] = {
    "mcp_servers": Refused(([],), "the server calls no other servers; let the client do it"),
    "container": Refused((), "the server runs no code"),
}


class ToolDefinition(Given):
    name: str
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None

    def definition(self, where: str) -> dict[str, Any]:
        """As the assistant takes it. Raises RequestError for tools that run on Anthropic's servers."""
        if self.type not in (None, "custom"):
            message = f"`{where}` is {self.type!r}: this server has no tools of its own; define a tool with `input_schema`"
            raise RequestError(message, f"{where}.type", code="unsupported_tool")
        if self.input_schema is None:
            raise RequestError(
                f"you must provide `{where}.input_schema`", f"{where}.input_schema", code="missing_required_parameter"
            )
        function = {"name": self.name, "description": self.description, "parameters": self.input_schema, "strict": self.strict}
        return {"type": "function", "function": {name: value for name, value in function.items() if value is not None}}


class ToolChoice(Given):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None

    @property
    def choice(self) -> str:
        """In the assistant's words. Raises RequestError."""
        if self.type == "tool" and not self.name:
            raise RequestError("you must provide `tool_choice.name`", "tool_choice.name", code="missing_required_parameter")
        return {"any": "required", "tool": self.name or ""}.get(self.type, self.type)


class Thinking(Given):
    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    display: Literal["summarized", "omitted"] | None = None


class OutputFormat(Given):
    type: Literal["json_schema"]
    described: dict[str, Any] = Field(alias="schema")


class OutputConfig(Given):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class PromptBody(NamedModelBody):
    """A conversation. Raises TemplateError, OptionError, GrammarError, RequestError where it is used."""

    refused: ClassVar[Mapping[str, Refused]] = REFUSED

    messages: Messages = Field(
        description="user, assistant and system; content is text or a list of blocks: text, document (of text), thinking, "
        "tool_use, tool_result. If the last one is the assistant's, the answer goes on where it ends"
    )
    system: System | None = Field(
        None, description="text, or a list of text blocks; Claude Code's line for Anthropic's bills is left out"
    )
    tools: list[ToolDefinition] | None = Field(
        None, description="tools with `name`, `description`, `input_schema` and `strict`; tools of Anthropic's servers are refused"
    )
    tool_choice: ToolChoice | None = Field(
        None, description='`type` "auto", "any", "tool" (with `name`) or "none"; `disable_parallel_tool_use`'
    )
    thinking: Thinking | None = Field(
        None,
        description='"enabled" with `budget_tokens`, after which the answer itself is begun; "adaptive"; "disabled" asks for no '
        'thoughts; by default as the model\'s template has it. `display` "omitted" leaves the text of thoughts out',
    )
    output_config: OutputConfig | None = Field(
        None, description="`effort`, for templates that know it; `format`, a JSON schema that the text follows"
    )
    output_format: OutputFormat | None = Field(None, description="as `output_config.format`")

    @property
    def continues(self) -> bool:
        """Whether the answer goes on with the last message."""
        last = self.messages[-1]
        blocks = [] if isinstance(last.content, str) else last.content
        return last.role == "assistant" and len(self.messages) > 1 and not any(block.type == "tool_use" for block in blocks)

    def prompt(self, assistant: Assistant) -> Prompt:
        """What the model is to read."""
        chosen, config = self.tool_choice, self.output_config or OutputConfig()
        form = config.format or self.output_format
        definitions = [tool.definition(f"tools[{place}]") for place, tool in enumerate(self.tools or ())]
        options = ChatOptions(
            tools=definitions,
            tool_choice="auto" if chosen is None else chosen.choice,
            parallel_tool_calls=not (chosen is not None and chosen.disable_parallel_tool_use),
            constraint=None if form is None else Grammar.json_schema(form.described),
            reasoning_effort=self._effort(config),
            reasoning_budget=self.thinking.budget_tokens if self.thinking is not None and self.thinking.type == "enabled" else None,
            continue_final=self.continues,
        )
        return assistant.prompt(plain(self.system, self.messages), options)

    def _effort(self, config: OutputConfig) -> str | None:
        if self.thinking is not None and self.thinking.type == "disabled":
            return "none"
        if config.effort is not None:
            return _EFFORTS[config.effort]
        return None if self.thinking is None else "high"


class MessagesBody(PromptBody):
    """A conversation, and how it is to be answered."""

    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] = Field(description="tokens of the answer, thoughts among them")
    stream: bool | None = Field(None, description="server-sent events instead of one JSON object")
    stop_sequences: Annotated[list[StopString], Field(max_length=MAX_STOPS)] | None = Field(
        None, description="at most 16 strings of 256 characters that end the answer; they are not part of it"
    )
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(None, description="0 takes the likeliest token; default 0.8")
    top_p: Annotated[float, Field(ge=0, le=1)] | None = Field(None, description="default 0.95")
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = Field(None, description="default 40; 0 or -1: off")

    @property
    def streamed(self) -> bool:
        return bool(self.stream)

    @property
    def sampling(self) -> Sampling:
        """How tokens are chosen."""
        options = {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k, "max_tokens": self.max_tokens}
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        return Sampling(**given, stop=tuple(self.stop_sequences or ()))
