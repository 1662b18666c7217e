"""Requests as they arrive: the body read and checked, and what is known of who asks."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request

from lacewing.server.context import Context, context_of
from lacewing.server.events import Record
from lacewing.server.openai.bodies import Body
from lacewing.server.openai.errors import RequestError, of_validation
from lacewing.server.openai.types import new_id

TBody = TypeVar("TBody", bound=Body)
TFound = TypeVar("TFound")


async def read(request: Request, kind: type[TBody]) -> TBody:
    """The body. Raises RequestError."""
    content = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if content != "application/json" and not content.endswith("+json"):
        raise RequestError(f"the body must be application/json, it is {content[:80]!r}", status=415, code="unsupported_media_type")
    try:
        return kind.parsed(await request.body())
    except ValidationError as error:
        raise of_validation(error) from None
    except ClientDisconnect:
        raise RequestError("the client left before its request was complete", status=400, code="incomplete_request") from None


async def accept(request: Request, kind: type[TBody], make: Callable[[Context, TBody, Record, Hashable], TFound]) -> TFound:
    """An exchange for a request whose body is valid."""
    return accept_body(request, await read(request, kind), make)


def accept_body(request: Request, body: TBody, make: Callable[[Context, TBody, Record, Hashable], TFound]) -> TFound:
    """The same for a body that has been read."""
    state: dict[str, Any] = request.scope.get("state", {})
    record = Record(state.get("request_id") or new_id("req_"), request.url.path)
    return make(context_of(request.app), body, record, who(request))


def who(request: Request) -> Hashable:
    """Whose turn it is in the queue: the holder of an API key, else a client's address."""
    key = request.scope.get("state", {}).get("key")
    return ("key", key) if key is not None else ("client", request.client.host if request.client else "")
