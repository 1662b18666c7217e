"""POST /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse

from lacewing.server.answers import Answers, Job
from lacewing.server.anthropic.errors import DIALECT
from lacewing.server.anthropic.format import MessageWriter
from lacewing.server.anthropic.types import MessagesBody, PromptBody
from lacewing.server.context import Served
from lacewing.server.exchange import Exchange, Format
from lacewing.server.native.texts import with_model
from lacewing.server.openai.requests import accept, read


class MessagesExchange(Exchange[MessagesBody]):
    """The answer to one conversation."""

    dialect = DIALECT

    def jobs(self, served: Served) -> list[Job]:
        return [Job(self.body.prompt(served.worker.assistant), self.body.sampling)]

    def format(self, served: Served, answers: Answers) -> Format:
        thinking = self.body.thinking
        return MessageWriter(served.name, self.body.max_tokens, omitted=thinking is not None and thinking.display == "omitted")


async def messages(request: Request) -> MessagesExchange:
    """Answers a conversation as Anthropic's API does."""
    return await accept(request, MessagesBody, MessagesExchange)


async def count_tokens(request: Request) -> JSONResponse:
    """How many tokens the prompt of such a conversation has."""
    body = await read(request, PromptBody)

    def work(served: Served) -> dict[str, int]:
        return {"input_tokens": len(body.prompt(served.worker.assistant).ids)}

    return await with_model(request, body, work)
