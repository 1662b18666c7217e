"""A model as `/models` and `/v1/models` show it: OpenAI's fields, Anthropic's, those of llama-server's router, and ours."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lacewing.errors import LacewingError
from lacewing.server.models.loading import in_thread

if TYPE_CHECKING:
    from lacewing.server.context import Registry
    from lacewing.server.models.facts import Facts
    from lacewing.server.models.served import Entry, Served

_VALUES = {"aside": "sleeping", "failed": "unloaded"}  # words of llama-server's router for ours
_TEXT = {"input_modalities": ["text"], "output_modalities": ["text"]}


async def described(registry: Registry, entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Reads what headers tell in a thread: files may be many, and a disk may be slow."""
    facts = await in_thread(lambda: [registry.facts(each) for each in entries])
    first = registry.default
    return [describe(entry, found, entry.name == first) for entry, found in zip(entries, facts, strict=True)]


def listed(models: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A list of them, which is one page in Anthropic's words."""
    first, last = (models[0]["id"], models[-1]["id"]) if models else (None, None)
    return {"object": "list", "data": models, "has_more": False, "first_id": first, "last_id": last}


def describe(entry: Entry, facts: Facts | None, default: bool) -> dict[str, Any]:
    """One model, in memory or not."""
    return {
        "id": entry.name,
        "object": "model",
        "created": entry.created,
        "owned_by": "lacewing",
        "type": "model",
        "display_name": entry.name,
        "created_at": datetime.datetime.fromtimestamp(entry.created, datetime.UTC).isoformat().replace("+00:00", "Z"),
        "default": default,
        "status": status(entry),
        "architecture": _TEXT,
        "capabilities": [] if facts is None else list(facts.capabilities),
        "meta": None if facts is None else _meta(facts),
        "context": None if facts is None else facts.context,
        "template": _template(entry, facts),
        "template_choice": entry.setup.template,
        "experts": None if facts is None or facts.experts is None else dataclasses.asdict(facts.experts),
        **_memory(entry.served),
    }


def status(entry: Entry) -> dict[str, Any]:
    """`value`, and what else there is to say: progress, or why it failed."""
    found: dict[str, Any] = {"value": _VALUES.get(entry.status, entry.status)}
    if entry.status == "failed":
        found |= {"failed": True, "message": entry.problem}
    what, done, total = entry.stage
    if entry.status == "loading" or entry.changing:
        what = what or "waiting"
        found["progress"] = {
            "stages": [what],
            "current": what,
            "value": done / total if total else 0.0,
            "done": done,
            "total": total,
        }
    return found


def _meta(facts: Facts) -> dict[str, Any]:
    """As llama-server tells it, with the names of architecture and quant."""
    return {
        "architecture": facts.architecture,
        "quant": facts.quant,
        "n_params": facts.parameters,
        "n_vocab": facts.vocabulary,
        "n_embd": facts.width,
        "n_ctx_train": facts.trained_context,
        "n_ctx": facts.context,
        "size": facts.nbytes,
    }


def _template(entry: Entry, facts: Facts | None) -> str | None:
    if entry.served is not None:
        try:
            return entry.served.worker.assistant.format.template.name  # type: ignore[no-any-return]
        except LacewingError:
            return None
    return None if facts is None else facts.template


def _memory(served: Served | None) -> dict[str, Any]:
    if served is None or not served.model.on_device:
        return {"residency": None, "backend": None, "memory_bytes": 0, "device_bytes": 0, "running": 0, "waiting": 0}
    model, (memory, device) = served.model, served.sizes
    return {
        "residency": model.weights.residency if model.weights_on_host else "device",
        "backend": model.backend.name,
        "memory_bytes": memory,
        "device_bytes": device,
        "running": served.worker.queue.running,
        "waiting": served.worker.queue.waiting,
    }
