"""The ASGI application: which path is answered by what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lacewing.errors import LacewingError
from lacewing.server.admin.activity import activity, experts
from lacewing.server.admin.changes import show_change
from lacewing.server.admin.models import delete_model, fetch_model, known_models, list_models, load_model, show_model, unload_model
from lacewing.server.admin.stream import model_events
from lacewing.server.admin.templates import model_templates
from lacewing.server.anthropic.endpoints import count_tokens, messages
from lacewing.server.context import Context, Limits, Registry
from lacewing.server.dialects import dialect_of
from lacewing.server.events import Observer, Observers
from lacewing.server.native.completion import completion, infill
from lacewing.server.native.health import health
from lacewing.server.native.properties import change_props, change_slot, props, slots
from lacewing.server.native.rerank import rerank
from lacewing.server.native.texts import apply_template, detokenize, tokenize
from lacewing.server.ollama.chat import chat
from lacewing.server.ollama.embed import embed
from lacewing.server.ollama.embed import embeddings as old_embeddings
from lacewing.server.ollama.generate import generate
from lacewing.server.ollama.models import ps, show, tags, version
from lacewing.server.ollama.pull import elsewhere, pull
from lacewing.server.openai import errors
from lacewing.server.openai.chat import chat_completions
from lacewing.server.openai.completions import completions
from lacewing.server.openai.embeddings import embeddings
from lacewing.server.page.assets import page_file
from lacewing.server.responses import conversations
from lacewing.server.responses.endpoints import (
    cancel_response,
    compact,
    count_input_tokens,
    create_response,
    delete_response,
    list_input_items,
    show_response,
)
from lacewing.server.responses.state import State
from lacewing.server.responses.store import Store
from lacewing.server.root import root

if TYPE_CHECKING:
    from collections.abc import Sequence

ROUTES = (
    Route("/page/{path:path}", page_file, methods=["GET"]),
    Route("/v1/chat/completions", chat_completions, methods=["POST"]),
    Route("/v1/completions", completions, methods=["POST"]),
    Route("/v1/embeddings", embeddings, methods=["POST"]),
    Route("/v1/responses", create_response, methods=["POST"]),
    Route("/v1/responses/input_tokens", count_input_tokens, methods=["POST"]),
    Route("/v1/responses/compact", compact, methods=["POST"]),
    Route("/v1/responses/{id}", show_response, methods=["GET"]),
    Route("/v1/responses/{id}", delete_response, methods=["DELETE"]),
    Route("/v1/responses/{id}/cancel", cancel_response, methods=["POST"]),
    Route("/v1/responses/{id}/input_items", list_input_items, methods=["GET"]),
    Route("/v1/conversations", conversations.create_conversation, methods=["POST"]),
    Route("/v1/conversations/{id}", conversations.show_conversation, methods=["GET"]),
    Route("/v1/conversations/{id}", conversations.change_conversation, methods=["POST"]),
    Route("/v1/conversations/{id}", conversations.delete_conversation, methods=["DELETE"]),
    Route("/v1/conversations/{id}/items", conversations.list_items, methods=["GET"]),
    Route("/v1/conversations/{id}/items", conversations.add_items, methods=["POST"]),
    Route("/v1/conversations/{id}/items/{item}", conversations.show_item, methods=["GET"]),
    Route("/v1/conversations/{id}/items/{item}", conversations.delete_item, methods=["DELETE"]),
    Route("/v1/messages", messages, methods=["POST"]),
    Route("/v1/messages/count_tokens", count_tokens, methods=["POST"]),
    Route("/v1/models", list_models, methods=["GET"]),
    Route("/v1/models/{model:path}", show_model, methods=["GET"]),
    Route("/models", list_models, methods=["GET"]),
    Route("/models", fetch_model, methods=["POST"]),
    Route("/models", delete_model, methods=["DELETE"]),
    Route("/models/load", load_model, methods=["POST"]),
    Route("/models/unload", unload_model, methods=["POST"]),
    Route("/models/changes/{id}", show_change, methods=["GET"]),
    Route("/models/sse", model_events, methods=["GET"]),
    Route("/models/known", known_models, methods=["GET"]),
    Route("/models/templates", model_templates, methods=["GET"]),
    Route("/models/activity", activity, methods=["GET"]),
    Route("/models/experts", experts, methods=["GET"]),
    Route("/", root, methods=["GET"]),
    Route("/api/version", version, methods=["GET"]),
    Route("/api/tags", tags, methods=["GET"]),
    Route("/api/ps", ps, methods=["GET"]),
    Route("/api/show", show, methods=["POST"]),
    Route("/api/chat", chat, methods=["POST"]),
    Route("/api/generate", generate, methods=["POST"]),
    Route("/api/embed", embed, methods=["POST"]),
    Route("/api/embeddings", old_embeddings, methods=["POST"]),
    Route("/api/pull", pull, methods=["POST"]),
    *(Route(f"/api/{name}", elsewhere, methods=["POST"]) for name in ("create", "copy", "push")),
    Route("/api/delete", elsewhere, methods=["DELETE"]),
    Route("/completion", completion, methods=["POST"]),
    Route("/completions", completion, methods=["POST"]),
    Route("/infill", infill, methods=["POST"]),
    Route("/props", props, methods=["GET"]),
    Route("/props", change_props, methods=["POST"]),
    Route("/slots", slots, methods=["GET"]),
    Route("/slots/{id}", change_slot, methods=["POST"]),
    *(Route(path, rerank, methods=["POST"]) for path in ("/v1/rerank", "/rerank", "/v1/reranking", "/reranking")),
    Route("/tokenize", tokenize, methods=["POST"]),
    Route("/detokenize", detokenize, methods=["POST"]),
    Route("/apply-template", apply_template, methods=["POST"]),
    Route("/health", health, methods=["GET"]),
    Route("/v1/health", health, methods=["GET"]),
)


def create_app(registry: Registry, options: Limits, observers: Sequence[Observer] = (), store: Store | None = None) -> Starlette:
    """The application for `registry`. Observers are told of every request for an answer; `store` keeps responses."""
    handlers = {LacewingError: _on_error, HTTPException: _on_http_error, Exception: _on_error}
    app = Starlette(routes=list(ROUTES), exception_handlers=handlers)
    app.state.context = Context(registry, options, Observers(tuple(observers)))
    app.state.responses = State(store)
    return app


async def _on_error(request: Request, error: Exception) -> Response:
    """Of an endpoint."""
    dialect = dialect_of(request.url.path) or errors.DIALECT
    return dialect.response(error)


async def _on_http_error(request: Request, error: Exception) -> Response:
    """A path or a method that there is not."""
    status = getattr(error, "status_code", 500)
    if status == 404:
        message = f"there is no {request.method} {request.url.path[:200]} here"
    elif status == 405:
        message = f"{request.url.path} does not take {request.method}"
    else:
        message = str(getattr(error, "detail", error))
    code = {404: "not_found", 405: "method_not_allowed"}.get(status)
    response = await _on_error(request, errors.RequestError(message, status=status, code=code))
    response.headers.update(getattr(error, "headers", None) or {})
    return response
