"""POST /v1/chat/completions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from lacewing.assistant.options import ChatOptions
from lacewing.assistant.tools.definitions import checked, choice
from lacewing.server.answers import Answers, Job
from lacewing.server.context import Served
from lacewing.server.exchange import Exchange, Format
from lacewing.server.openai.bodies import AnswerBody, ModelBody, ReasoningEffort
from lacewing.server.openai.chat_format import ChatWriter
from lacewing.server.openai.constraints import ResponseFormat, grammar_of
from lacewing.server.openai.errors import RequestError
from lacewing.server.openai.messages import Messages, plain
from lacewing.server.openai.requests import accept

if TYPE_CHECKING:
    from lacewing.assistant.grammar.source import Grammar
    from lacewing.assistant.prompt import Prompt
    from lacewing.assistant.reply import Assistant

MAX_TOP = 20


class ReasoningOptions(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    effort: ReasoningEffort | None = None


class ConversationBody(ModelBody):
    """A conversation, and what its template is told besides. Raises TemplateError, OptionError, RequestError where it is used."""

    messages: Messages = Field(description="system, developer, user, assistant and tool; content is text or a list of text parts")
    tools: list[dict[str, Any]] | None = Field(None, description="functions that the model may call")
    tool_choice: str | dict[str, Any] | None = Field(
        None, description='"auto", "none", "required", a name, or {"type": "function", "function": {"name": ...}}'
    )
    parallel_tool_calls: bool | None = Field(None, description="default true: several calls in one answer")
    reasoning_effort: ReasoningEffort | None = Field(None, description='for templates that know it; "none" asks for no thoughts')
    reasoning: ReasoningOptions | None = Field(None, description="`effort`, as `reasoning_effort`")
    thinking_budget_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = Field(
        None, description="tokens of thoughts, after which the answer itself is begun"
    )
    chat_template_kwargs: dict[str, Any] | None = Field(None, description="variables of the template, such as `enable_thinking`")
    continue_final_message: bool | None = Field(
        None, description="the answer goes on where the last message, the assistant's, ends; default: it does if that is the last"
    )

    @property
    def continues(self) -> bool:
        """Whether the answer goes on with the last message."""
        if self.continue_final_message is not None:
            return self.continue_final_message
        return self.messages[-1].role == "assistant" and not self.messages[-1].tool_calls and len(self.messages) > 1

    def prompt(self, assistant: Assistant, grammar: Grammar | None = None) -> Prompt:
        """What the model is to read. `grammar`: what the text of the answer must follow."""
        form = assistant.format
        messages = plain(self.messages, knows_developer="developer" in form.template.source)
        effort = self.reasoning_effort or (self.reasoning.effort if self.reasoning else None)
        tools = self.tools or []
        options = ChatOptions(
            tools=tools,
            tool_choice=choice(self.tool_choice, checked(tools)),
            parallel_tool_calls=self.parallel_tool_calls is not False,
            constraint=grammar,
            reasoning_effort="high" if effort == "xhigh" else effort,
            reasoning_budget=self.thinking_budget_tokens,
            template_arguments=self.chat_template_kwargs or {},
            continue_final=self.continues,
        )
        return assistant.prompt(messages, options)


class ChatBody(AnswerBody, ConversationBody):
    """A conversation, and how it is to be answered."""

    max_completion_tokens: Annotated[int, Field(ge=-1, lt=2**31)] | None = Field(
        None, description="as `max_tokens`, and goes before it"
    )
    logprobs: bool | None = Field(None, description="of each token of the visible text")
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP)] | None = Field(None, description="0 to 20; needs `logprobs`")
    response_format: ResponseFormat | None = Field(
        None, description='"text", "json_object", or "json_schema" with a schema that the text then follows'
    )
    json_schema: dict[str, Any] | None = Field(None, description="a schema that the text follows, as llama-server takes it")
    grammar: str | None = Field(None, description="a grammar that the text follows, in GBNF or Lark, as llama-server takes it")
    reasoning_format: Literal["auto", "deepseek", "none"] | None = Field(
        None, description='"none" leaves thoughts in the text; otherwise they are `reasoning_content`'
    )

    @property
    def limit(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def top(self) -> int | None:
        """None: no log-probabilities."""
        if not self.logprobs:
            if self.top_logprobs:
                raise RequestError("`top_logprobs` needs `logprobs` to be true", "top_logprobs", code="invalid_value")
            return None
        return self.top_logprobs or 0


class ChatExchange(Exchange[ChatBody]):
    """The answers to one conversation."""

    def jobs(self, served: Served) -> list[Job]:
        body = self.body
        prompt = body.prompt(served.worker.assistant, grammar_of(body.response_format, body.json_schema, body.grammar))
        sampling = body.sampling(body.limit, 0 if body.top is None else max(1, body.top))
        return [Job(prompt, each, body.seconds) for each in body.seeded(sampling)]

    def format(self, served: Served, answers: Answers) -> Format:
        body = self.body
        writer = ChatWriter(
            served.name, served.model.tokenizer, body.top, body.wants_usage, bool(body.timings_per_token), body.continues
        )
        writer.thoughts_in_text = body.reasoning_format == "none"
        return writer


async def chat_completions(request: Request) -> ChatExchange:
    """Answers a conversation."""
    return await accept(request, ChatBody, ChatExchange)
