"""GET /api/tags, /api/ps and /api/version, POST /api/show: which models there are, and what is known of one."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse

from lacewing import __version__, hub
from lacewing.server.context import context_of
from lacewing.server.models.loading import in_thread
from lacewing.server.ollama.writing import timestamp
from lacewing.server.openai.bodies import Body
from lacewing.server.openai.errors import RequestError
from lacewing.server.openai.requests import read

if TYPE_CHECKING:
    from lacewing.server.models.facts import Facts
    from lacewing.server.models.served import Entry

Sums = Mapping[Path, str]  # SHA-256 of files

API_VERSION = "0.13.0"  # of Ollama, whose API this is: clients refuse older ones
_FILLS = "{#- fills in: .Suffix #}"  # a comment, by which Continue knows that it may send a suffix
_FOR_EVER = 100 * 365 * 86400.0  # seconds


class ShowBody(Body):
    """Which model."""

    model: str | None = Field(None, description="a name of `/api/tags`")
    name: str | None = Field(None, description="the same, as it was called before")
    verbose: bool | None = Field(None, description="also long lists of the metadata are named, with null")


async def version(_: Request) -> JSONResponse:
    """The version of Ollama whose API this is, and ours."""
    return JSONResponse({"version": API_VERSION, "lacewing": __version__})


async def tags(request: Request) -> JSONResponse:
    """All models that are here, in memory or not."""
    registry = context_of(request.app).registry
    entries = registry.names()
    facts = await in_thread(lambda: [registry.facts(each) for each in entries])
    sums = await in_thread(_sums)
    models = [
        {**_about(entry, found, sums), "modified_at": timestamp(entry.created), "capabilities": list(found.capabilities)}
        for entry, found in zip(entries, facts, strict=True)
        if found is not None
    ]
    return JSONResponse({"models": models})


async def ps(request: Request) -> JSONResponse:
    """The models in memory, and until when."""
    registry = context_of(request.app).registry
    entries = [each for each in registry.names() if each.served is not None]
    facts = await in_thread(lambda: [registry.facts(each) for each in entries])
    sums = await in_thread(_sums)
    known = zip(entries, facts, strict=True)
    here = [
        (entry, found) for entry, found in known if found and entry.served and entry.served.model.on_device
    ]  # some left meanwhile
    return JSONResponse({"models": [_running(entry, found, sums) for entry, found in here]})


async def show(request: Request) -> JSONResponse:
    """What is known of one model."""
    body, registry = await read(request, ShowBody), context_of(request.app).registry
    name = body.model or body.name
    if not name:
        raise RequestError("model is required", "model", code="missing_required_parameter")
    entry = registry.entry(name)
    facts = await in_thread(lambda: registry.facts(entry))
    if facts is None:
        raise RequestError(
            f"model {name[:100]!r} is not here yet, or its file cannot be read", "model", status=404, code="not_found"
        )
    info = _info(facts)
    return JSONResponse({
        "modelfile": f"FROM {entry.name}\nPARAMETER num_ctx {facts.context}\n",
        "parameters": f"{'num_ctx':<30} {facts.context}",
        "template": facts.template_source + (_FILLS if "insert" in facts.capabilities else ""),
        "details": _details(facts),
        "model_info": info if body.verbose else {key: value for key, value in info.items() if value is not None},
        "capabilities": list(facts.capabilities),
        "modified_at": timestamp(entry.created),
    })  # fmt: skip


def tagged(name: str) -> str:
    """As Ollama's clients know a name; without the tag it is understood as well."""
    return name if ":" in name else f"{name}:latest"


def _about(entry: Entry, facts: Facts, sums: Sums) -> dict[str, Any]:
    name = tagged(entry.name)
    return {
        "name": name,
        "model": name,
        "size": facts.nbytes,
        "digest": sums.get(facts.path) or _digest(entry, facts),
        "details": _details(facts),
    }


def _running(entry: Entry, facts: Facts, sums: Sums) -> dict[str, Any]:
    memory, device = (0, 0) if entry.served is None else entry.served.sizes
    stays = _FOR_EVER if entry.leaves_in is None else min(entry.leaves_in, _FOR_EVER)
    return {
        **_about(entry, facts, sums),
        "size": memory + device,
        "size_vram": device,
        "expires_at": timestamp(time.time() + stays),
        "context_length": facts.context,
    }


def _details(facts: Facts) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": facts.format,
        "family": facts.architecture,
        "families": [facts.architecture],
        "parameter_size": _human(facts.parameters),
        "quantization_level": facts.quant,
        "context_length": facts.context,
        "embedding_length": facts.width,
    }


def _info(facts: Facts) -> dict[str, Any]:
    """The metadata of a GGUF file, or the same names for what is known of another one."""
    architecture = facts.metadata.get("general.architecture", facts.architecture)
    found = {
        "general.architecture": architecture,
        "general.basename": facts.name,
        "general.parameter_count": facts.parameters,
        f"{architecture}.context_length": facts.trained_context,
        f"{architecture}.embedding_length": facts.width,
        f"{architecture}.vocab_size": facts.vocabulary,
    }
    return {**found, **facts.metadata}


def _human(count: int) -> str:
    """`134.5M`, `1.2B`."""
    for size, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= size:
            return f"{count / size:.{2 if unit == 'M' else 1}f}{unit}"
    return str(count)


def _sums() -> Sums:
    """Of files that were fetched. For a thread of its own."""
    return {each.path: next(iter(each.files.values())) for each in hub.list_models() if len(each.files) == 1}


def _digest(entry: Entry, facts: Facts) -> str:
    """For a file that nobody has read as a whole: of its name, size and time."""
    return hashlib.sha256(f"{facts.path}:{facts.nbytes}:{entry.created}".encode()).hexdigest()
