"""Cuts OpenAI's description of its API to the paths that `lacewing serve` has, without the prose, for tests/server/clients.

    git clone https://github.com/openai/openai-openapi
    python tools/cut_description.py openai-openapi/openapi.json tests/data/openai.json

The description is under the MIT licence, which tests/data/openai.LICENSE holds.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SERVED = {
    "/chat/completions": ["post"],
    "/completions": ["post"],
    "/embeddings": ["post"],
    "/models": ["get"],
    "/models/{model}": ["get"],
    "/responses": ["post"],
    "/responses/input_tokens": ["post"],
    "/responses/{response_id}": ["get", "delete"],
    "/responses/{response_id}/cancel": ["post"],
    "/responses/{response_id}/input_items": ["get"],
    "/conversations": ["post"],
    "/conversations/{conversation_id}": ["get", "post", "delete"],
    "/conversations/{conversation_id}/items": ["get", "post"],
    "/conversations/{conversation_id}/items/{item_id}": ["get", "delete"],
}
LEFT_OUT = ("description", "summary", "externalDocs", "tags", "title")


def references(value: Any) -> Iterator[str]:
    """All `$ref` in a value."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def bare(value: Any, named: bool = False) -> Any:
    """Without prose and OpenAI's own extensions. `named`: the keys are names of fields and schemas, which all stay."""
    if isinstance(value, list):
        return [bare(each) for each in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for key, each in value.items():
        if named or not (key in LEFT_OUT or key.startswith("x-")):
            found[key] = bare(each, named=not named and key in ("properties", "schemas", "responses", "patternProperties"))
    return found


def cut(whole: dict[str, Any]) -> dict[str, Any]:
    """The paths of SERVED and whatever they refer to."""
    paths = {path: {method: bare(whole["paths"][path][method]) for method in methods} for path, methods in SERVED.items()}
    for methods in paths.values():
        for operation in methods.values():
            for response in operation["responses"].values():
                response.setdefault("description", "")  # OpenAPI wants one
    components: dict[str, dict[str, Any]] = {}
    waiting = list(references(paths))
    while waiting:
        _, _, kind, name = waiting.pop().split("/")
        if name not in components.setdefault(kind, {}):
            components[kind][name] = found = bare(whole["components"][kind][name])
            waiting += references(found)
    for response in components.get("responses", {}).values():
        response.setdefault("description", "")
    info = {key: whole["info"][key] for key in ("title", "version", "license")}
    ordered = {kind: dict(sorted(components[kind].items())) for kind in sorted(components)}
    return {"openapi": whole["openapi"], "info": info, "paths": paths, "components": ordered}


def lines(value: Any, depth: int) -> str:
    """JSON with a line for each path and schema."""
    if not depth or not isinstance(value, dict):
        return json.dumps(value, separators=(",", ":"))
    return "{\n" + ",\n".join(f"{json.dumps(key)}:{lines(each, depth - 1)}" for key, each in value.items()) + "\n}"


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    found = cut(json.loads(source.read_text()))
    rows = ",\n".join(f"{json.dumps(key)}:{lines(value, 2)}" for key, value in found.items())
    target.write_text(f"{{\n{rows}\n}}\n", encoding="utf-8")
