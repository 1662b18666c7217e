"""Endpoints for conversations: items that are kept together, and that responses add to."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator
from starlette.requests import Request
from starlette.responses import JSONResponse

from lacewing.server.openai.bodies import Body
from lacewing.server.openai.errors import RequestError
from lacewing.server.openai.requests import read
from lacewing.server.openai.types import new_id, now
from lacewing.server.responses.create import unknown
from lacewing.server.responses.database import Database, Item
from lacewing.server.responses.items import REFERENCE, Items, kept
from lacewing.server.responses.pages import page
from lacewing.server.responses.state import state_of
from lacewing.server.responses.types import checked_metadata


class ConversationBody(Body):
    """What a conversation is begun or changed with."""

    items: Items | None = Field(None, description="items that it begins with")
    metadata: dict[str, str] | None = Field(None, description="16 pairs of texts")

    @field_validator("metadata")
    @classmethod
    def _check_metadata(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        return checked_metadata(value)


class ItemsBody(Body):
    """Items that are added."""

    items: Items = Field(description="as `input` of a response")


async def create_conversation(request: Request) -> JSONResponse:
    """Begins a conversation, which responses can add to."""
    body, store = await read(request, ConversationBody), state_of(request.app).kept
    found = {"id": new_id("conv_") + new_id("")[:8], "object": "conversation", "created_at": now(), "metadata": body.metadata or {}}
    await store.call(Database.save_conversation, found, _kept(body.items))
    return JSONResponse(found)


async def show_conversation(request: Request) -> JSONResponse:
    """A conversation, without its items."""
    return JSONResponse((await _found(request))[0])


async def change_conversation(request: Request) -> JSONResponse:
    """Gives a conversation other metadata."""
    body, (found, _) = await read(request, ConversationBody), await _found(request)
    found |= {"metadata": body.metadata or {}}
    await state_of(request.app).kept.call(Database.save_conversation, found)
    return JSONResponse(found)


async def delete_conversation(request: Request) -> JSONResponse:
    """Deletes a conversation with its items; responses that were made in it stay."""
    id = request.path_params["id"]
    if not await state_of(request.app).kept.call(Database.delete_conversation, id):
        raise unknown("conversation", id)
    return JSONResponse({"id": id, "object": "conversation.deleted", "deleted": True})


async def list_items(request: Request) -> JSONResponse:
    """The items of a conversation."""
    return JSONResponse(page(request, (await _found(request))[1]))


async def add_items(request: Request) -> JSONResponse:
    """Adds items to a conversation."""
    body, (found, _) = await read(request, ItemsBody), await _found(request)
    items = _kept(body.items)
    await state_of(request.app).kept.call(Database.save_conversation, found, items)
    first, last = (items[0]["id"], items[-1]["id"]) if items else ("", "")
    return JSONResponse({"object": "list", "data": items, "first_id": first, "last_id": last, "has_more": False})


async def show_item(request: Request) -> JSONResponse:
    """One item of a conversation."""
    id = request.path_params["item"]
    for item in (await _found(request))[1]:
        if item["id"] == id:
            return JSONResponse(item)
    raise unknown("item", id)


async def delete_item(request: Request) -> JSONResponse:
    """Deletes one item of a conversation."""
    found, _ = await _found(request)
    if not await state_of(request.app).kept.call(Database.delete_item, found["id"], request.path_params["item"]):
        raise unknown("item", request.path_params["item"])
    return JSONResponse(found)


async def _found(request: Request) -> tuple[dict[str, Any], list[Item]]:
    id = request.path_params["id"]
    found = await state_of(request.app).kept.call(Database.conversation, id)
    if found is None:
        raise unknown("conversation", id)
    return found


def _kept(items: Items | None) -> list[Item]:
    found = kept(items or [], "items")
    for item in found:
        if item["type"] == REFERENCE:
            raise RequestError(f"`{item['where']}` must be the item itself", f"{item['where']}.type", code="invalid_value")
    return found
