"""GET /models/activity and /models/experts: what a model does now, for those who look at it; nothing is loaded for that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from lacewing.server.admin.entries import status
from lacewing.server.context import Registry, context_of
from lacewing.server.models.loading import in_thread
from lacewing.server.openai.errors import RequestError

if TYPE_CHECKING:
    from lacewing.server.models.served import Entry, Served
    from lacewing.weights.experts.slots import StreamStatistics


async def activity(request: Request) -> JSONResponse:
    """Sequences that run, tokens a second, and how full the KV cache is."""
    entry = context_of(request.app).registry.entry(request.query_params.get("model"))
    found: dict[str, Any] = {"model": entry.name, "status": status(entry)["value"]}
    served = entry.served
    if served is None or not served.model.on_device:
        return JSONResponse({**found, "context": None, "requests": None, "sequences": [], "tokens_per_second": 0.0, "kv": None})
    step, queue = served.model.engine.step, served.worker.queue
    pages, limits = served.model.engine.scheduler.pages, step.limits
    sequences = [_sequence(each.handle.stats) for each in list(served.worker.tickets) if each.begun]
    groups = range(len(step.groups))
    planned = sum(each.planned(limits.context, limits.chunk, limits.rows, limits.positions) for each in step.groups)
    return JSONResponse({
        **found,
        "context": served.model.spec.context,
        "requests": {"running": queue.running, "waiting": queue.waiting, "limit": limits.rows},
        "sequences": sequences,
        "tokens_per_second": round(sum(each["predicted_per_second"] for each in sequences), 2),
        "kv": {"pages_used": sum(map(pages.used, groups)), "pages_limit": planned, "bytes": step.state_bytes},
    })  # fmt: skip


def _sequence(stats: Any) -> dict[str, Any]:
    return {
        "tokens": stats.prompt_tokens + stats.generated_tokens,
        "prompt_tokens": stats.prompt_tokens,
        "cached_tokens": stats.reused_tokens,
        "generated_tokens": stats.generated_tokens,
        "prompt_per_second": round(stats.prompt_rate, 2),
        "predicted_per_second": round(stats.generate_rate, 2),
    }


async def experts(request: Request) -> JSONResponse:
    """The tokens that each expert of each layer has received since the counting began."""
    context = context_of(request.app)
    entry = context.registry.entry(request.query_params.get("model"))
    served = in_memory(entry)
    facts = await _facts(context.registry, entry)
    if facts is None or facts.experts is None:
        raise RequestError(f"{entry.name} is no mixture of experts, so there is no load of experts", "model", code="not_a_mixture")
    watched = await context.experts.counts(served)
    counted = watched.loads.layers()
    streamed = served.model.weights.experts
    use = served.model.engine.step.cache_statistics if streamed is None else streamed.statistics
    return JSONResponse({
        "model": entry.name,
        "experts": facts.experts.count,
        "active": facts.experts.active,
        "since": watched.since,
        "tokens": max(map(sum, counted.values()), default=0) // facts.experts.active,
        "layers": [{"layer": layer, "tokens": tokens} for layer, tokens in counted.items()],
        "hit_ratio": None if use is None else use.hit_rate,
        "found": None if streamed is None else _found(streamed.statistics),
    })  # fmt: skip


def _found(use: StreamStatistics) -> dict[str, int]:
    """Where the chosen experts of a streamed model were, since it was loaded."""
    return {"gpu": use.elsewhere, "ram": use.hits, "disk": use.misses}


async def _facts(registry: Registry, entry: Entry) -> Any:
    return await in_thread(lambda: registry.facts(entry))


def in_memory(entry: Entry) -> Served:
    """Raises RequestError for one that is not."""
    if entry.served is None or not entry.served.model.on_device:
        message = f"{entry.name} is not in memory; load it with POST /models/load, or ask it something"
        raise RequestError(message, "model", status=409, code="model_not_loaded")
    return entry.served
