"""Endpoints for responses: make one, ask for it again, follow it, cancel it, delete it."""

from __future__ import annotations

import functools

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp

from lacewing.server.context import Served, context_of
from lacewing.server.native.texts import with_model
from lacewing.server.openai.errors import RequestError
from lacewing.server.openai.requests import accept
from lacewing.server.responses.create import ResponseExchange, unknown
from lacewing.server.responses.database import Database, Stored
from lacewing.server.responses.pages import page
from lacewing.server.responses.running import Follow
from lacewing.server.responses.state import state_of
from lacewing.server.responses.types import ResponseBody


async def create_response(request: Request) -> ASGIApp:
    """Answers, and keeps the answer, so that another request can go on from it."""
    state, exchange = state_of(request.app), await _exchange(request)
    if not exchange.body.background:
        return exchange
    run = await state.runs.start(exchange)
    if exchange.body.stream:
        return Follow(run, -1, exchange.context.limits)
    return JSONResponse(run.writer.response)


async def count_input_tokens(request: Request) -> JSONResponse:
    """How many tokens the prompt of such a request has."""
    exchange = await _exchange(request)

    def work(served: Served) -> dict[str, object]:
        return {"object": "response.input_tokens", "input_tokens": len(exchange.jobs(served)[0].prompt.ids)}

    return await with_model(request, exchange.body, work)


async def compact(request: Request) -> JSONResponse:
    """Not offered (404): `truncation` shortens a conversation that is too long."""
    message = 'conversations are not summarised here; `truncation` "auto" drops their oldest turns'
    raise RequestError(message, status=404, code="not_found")


async def show_response(request: Request) -> ASGIApp:
    """A response that was stored; with `stream=true` the events of one in the background, from `starting_after` on."""
    id, run = request.path_params["id"], state_of(request.app).runs.find(request.path_params["id"])
    if request.query_params.get("stream") == "true":
        if run is None:
            await _stored(request)
            message = f"the events of response {id} are not kept: it was not made in the background, or ended long ago"
            raise RequestError(message, "stream", code="invalid_value")
        return Follow(run, _number(request.query_params.get("starting_after")), context_of(request.app).limits)
    return JSONResponse((await _stored(request)).body if run is None else run.writer.response)


async def delete_response(request: Request) -> JSONResponse:
    """Deletes a stored response; responses that continued it cannot be continued either."""
    id, state = request.path_params["id"], state_of(request.app)
    run = state.runs.find(id)
    if run is not None:
        await run.cancel()
        state.runs.forget(id)
    if not await state.kept.call(Database.delete_response, id):
        raise unknown("response", id)
    return JSONResponse({"id": id, "object": "response", "deleted": True})


async def cancel_response(request: Request) -> JSONResponse:
    """Cancels a response in the background, and returns what it has so far."""
    id, run = request.path_params["id"], state_of(request.app).runs.find(request.path_params["id"])
    if run is not None:
        await run.cancel()
        return JSONResponse(run.writer.response)
    stored = await _stored(request)
    if not stored.body["background"]:
        raise RequestError(
            f"response {id} does not run in the background; close its connection", "response_id", code="invalid_value"
        )
    return JSONResponse(stored.body)


async def list_input_items(request: Request) -> JSONResponse:
    """What a stored response was made from, the responses before it included."""
    stored, store = await _stored(request), state_of(request.app).kept
    before = [] if stored.previous is None else await store.call(Database.history, stored.previous)
    if before is None:
        raise unknown("response", stored.previous or "")
    return JSONResponse(page(request, [*before, *await store.call(Database.input, request.path_params["id"])]))


async def _exchange(request: Request) -> ResponseExchange:
    make = functools.partial(ResponseExchange, store=state_of(request.app).store)
    exchange = await accept(request, ResponseBody, make)
    await exchange.load()
    return exchange


async def _stored(request: Request) -> Stored:
    id = request.path_params["id"]
    found = await state_of(request.app).kept.response(id)
    if found is None:
        raise unknown("response", id)
    return found


def _number(text: str | None) -> int:
    """Of an event; -1 stands before all."""
    if text is None:
        return -1
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise RequestError("`starting_after` must be the number of an event", "starting_after", code="invalid_value")
    return int(text)
