"""GET /models/templates: the chat templates that a model can have."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from lacewing.assistant.templates import AUTO, listing
from lacewing.server.admin.activity import in_memory
from lacewing.server.context import context_of
from lacewing.server.models.loading import in_thread


async def model_templates(request: Request) -> JSONResponse:
    """Templates by name, which of them is in use, and what is odd about each."""
    entry = context_of(request.app).registry.entry(request.query_params.get("model"))
    model, chosen = in_memory(entry).model, entry.setup.template
    rows = await in_thread(lambda: listing(model.info, model.tokenizer, chosen))
    data: list[dict[str, Any]] = []
    for row in rows:
        title = row.choice if row.template is None or row.choice != AUTO else row.template.name
        findings = row.findings.split("; ") if row.findings else []
        usable = row.template is not None
        data.append({"name": row.choice, "title": title, "active": row.choice == chosen, "findings": findings, "usable": usable})
    return JSONResponse({"data": data})
