"""GET /props and /slots: a model's properties and what it runs, as llama-server tells them. Nothing is loaded for that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from lacewing import __version__
from lacewing.options import Sampling
from lacewing.server.context import context_of
from lacewing.server.models.loading import in_thread
from lacewing.server.native.settings import settings_of
from lacewing.server.openai.errors import RequestError

if TYPE_CHECKING:
    from lacewing.server.models.facts import Facts
    from lacewing.server.models.served import Entry


async def props(request: Request) -> JSONResponse:
    """Context, slots, template and what it can do, of `?model=` or the first model."""
    registry = context_of(request.app).registry
    entry = registry.entry(request.query_params.get("model"))
    facts = await in_thread(lambda: registry.facts(entry))
    if facts is None:
        raise RequestError(f"{entry.name} is not here yet, or its file cannot be read", "model", status=404, code="not_found")
    return JSONResponse({
        "default_generation_settings": {"n_ctx": facts.context, "params": settings_of(Sampling(), facts.context)},
        "total_slots": _rows(entry),
        "model_alias": entry.name,
        "model_path": facts.path.name,
        "chat_template": facts.template_source,
        "chat_template_caps": _caps(facts),
        "modalities": {"vision": False, "audio": False},
        "build_info": f"lacewing-{__version__}",
        "is_sleeping": entry.status != "loaded",
    })  # fmt: skip


async def change_props(_: Request) -> JSONResponse:
    """Refused, as by llama-server: there is nothing to change here."""
    message = "properties are changed by POST /models/load: context, residency and template"
    raise RequestError(message, status=501, code="not_supported")


async def slots(request: Request) -> JSONResponse:
    """The rows of the batch, and the answer that each has; 503 with `?fail_on_no_slot=1` if all have one."""
    entry = context_of(request.app).registry.entry(request.query_params.get("model"))
    rows = _rows(entry)
    tickets = [] if entry.served is None else [each for each in list(entry.served.worker.tickets) if each.begun][:rows]
    if 0 < rows <= len(tickets) and request.query_params.get("fail_on_no_slot") not in (None, "", "0", "false"):
        raise RequestError("no slot is free", status=503, code="no_slot")
    context = entry.served.model.spec.context if entry.served is not None else 0
    found: list[dict[str, Any]] = []
    for row in range(rows):
        stats = tickets[row].handle.stats if row < len(tickets) else None
        slot: dict[str, Any] = {"id": row, "n_ctx": context, "speculative": False, "is_processing": stats is not None}
        if stats is not None:
            slot |= {
                "n_prompt_tokens": stats.prompt_tokens,
                "n_prompt_tokens_cache": stats.reused_tokens,
                "next_token": {"has_next_token": True, "n_decoded": stats.generated_tokens},
            }
        found.append(slot)
    return JSONResponse(found)


async def change_slot(_: Request) -> JSONResponse:
    """Refused: answers have no slot of their own whose state could be saved."""
    message = "slots cannot be saved, restored or erased: prompts are found again by their tokens, whichever row they run in"
    raise RequestError(message, status=501, code="not_supported")


def _rows(entry: Entry) -> int:
    """Sequences that run at a time; 0 if the model is not in memory."""
    served = entry.served
    return 0 if served is None or not served.model.on_device else served.model.engine.step.limits.rows


def _caps(facts: Facts) -> dict[str, bool]:
    """As llama-server names them."""
    tools = "tools" in facts.capabilities
    return {"supports_tools": tools, "supports_tool_calls": tools, "supports_system_role": "system" in facts.template_source}
