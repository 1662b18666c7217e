"""POST /api/chat: conversations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from starlette.requests import Request
from starlette.responses import Response

from lacewing.assistant.options import ChatOptions
from lacewing.server.answers import Answers, Job
from lacewing.server.context import Served
from lacewing.server.exchange import Format
from lacewing.server.ollama.exchange import AnswerExchange, Message, load_or_leave
from lacewing.server.ollama.options import AnswerBody
from lacewing.server.ollama.writing import LineWriter
from lacewing.server.openai.errors import RequestError
from lacewing.server.openai.messages import MAX_MESSAGES, Given
from lacewing.server.openai.requests import accept_body, read

if TYPE_CHECKING:
    from lacewing.assistant.prompt import Prompt


class FunctionCall(Given):
    name: str
    arguments: dict[str, Any] | str = Field(default_factory=dict)


class ToolCall(Given):
    id: str | None = None
    function: FunctionCall


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


class ChatMessage(Given):
    """A message; what nobody knows is left out."""

    role: Annotated[Literal["system", "user", "assistant", "tool"], BeforeValidator(_lower)]
    content: str | None = None
    thinking: str | None = None
    images: list[Any] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None

    def plain(self, place: int) -> Message:
        """For a template. Raises RequestError."""
        refuse_images(self.images, f"messages[{place}].images")
        found: Message = {"role": self.role, "content": self.content or ""}
        if self.thinking:
            found["reasoning_content"] = self.thinking
        if self.tool_calls:
            found["tool_calls"] = [
                {"id": call.id or f"call_{index}", "type": "function", "function": call.function.model_dump()}
                for index, call in enumerate(self.tool_calls)
            ]
        if self.tool_name:
            found["name"] = self.tool_name
        if self.tool_call_id:
            found["tool_call_id"] = self.tool_call_id
        return found


class ChatBody(AnswerBody):
    """A conversation, and how it is to be answered."""

    messages: Annotated[list[ChatMessage], Field(max_length=MAX_MESSAGES)] | None = Field(
        None, description="system, user, assistant and tool; none: the model is loaded, or leaves if `keep_alive` is 0"
    )
    tools: list[dict[str, Any]] | None = Field(None, description="functions that the model may call")


def refuse_images(images: list[Any] | None, where: str) -> None:
    """Raises RequestError."""
    if images:
        raise RequestError(f"`{where}`: images are not supported; this server reads text only", where, code="unsupported_content")


class ChatExchange(AnswerExchange[ChatBody]):
    """The answer to one conversation."""

    def jobs(self, served: Served) -> list[Job]:
        body, room, assistant = self.body, self.room(served), served.worker.assistant
        self.check_thinking(served)
        messages = [each.plain(place) for place, each in enumerate(body.messages or ())]
        last = messages[-1]
        continues = last["role"] == "assistant" and not last.get("tool_calls") and len(messages) > 1
        options = ChatOptions(
            tools=body.tools or [], constraint=body.grammar, reasoning_effort=body.effort, continue_final=continues
        )

        def make(some: Sequence[Message]) -> Prompt:
            return assistant.prompt(some, options)

        prompt = self.fitted(messages, room, make)
        top = 0 if body.top is None else max(1, body.top)
        return [Job(prompt, body.chosen.sampling(top, room - len(prompt.ids)))]

    def format(self, served: Served, answers: Answers) -> Format:
        writer = ChatWriter(self.body.model, self.record, served.model.tokenizer, self.body.top)
        writer.more = {"dropped_messages": self.dropped} if self.dropped else {}
        return writer


class ChatWriter(LineWriter):
    """Pieces are messages."""

    def piece(self, text: str, thoughts: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if thoughts:
            message["thinking"] = thoughts
        if calls:
            message["tool_calls"] = calls
        return {"message": message}


async def chat(request: Request) -> ChatExchange | Response:
    """Answers a conversation as Ollama's API does."""
    body = await read(request, ChatBody)
    if not body.messages:
        return await load_or_leave(request, body, {"message": {"role": "assistant", "content": ""}})
    return accept_body(request, body, ChatExchange)
