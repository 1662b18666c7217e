"""Tool definitions, as OpenAI's API has them: checked, within limits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lacewing.errors import OptionError
from lacewing.options import shown_value

MAX_TOOLS = 128
MAX_BYTES = 1 << 20  # of all definitions as JSON
MAX_DEPTH = 32
MAX_VISITS = 200  # schemas that are read to find the types of one parameter
AUTO, NONE, REQUIRED = "auto", "none", "required"
TYPES = ("string", "number", "integer", "boolean", "null", "array", "object")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_EMPTY: Mapping[str, Any] = {"type": "object", "properties": {}}


@dataclass(frozen=True)
class Tool:
    """One function that the model may call. `parameters`: a JSON schema of an object. `strict`: calls must follow it."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    strict: bool = False

    @property
    def definition(self) -> dict[str, Any]:
        """As templates take it."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": function}

    @property
    def required(self) -> frozenset[str]:
        """Names of the parameters that every call has."""
        named = self.parameters.get("required")
        return frozenset(each for each in named if isinstance(each, str)) if isinstance(named, list) else frozenset()

    @property
    def properties(self) -> Mapping[str, Any]:
        """The schema of each parameter."""
        found = self.parameters.get("properties")
        return found if isinstance(found, Mapping) else {}

    def types(self, parameter: str) -> frozenset[str]:
        """The JSON types that a parameter may have; all if its schema does not say, "string" if it has none."""
        if parameter not in self.properties:
            return frozenset(("string",))
        return _types(self.properties[parameter], self.parameters, [MAX_VISITS])


class Tools(Mapping[str, Tool]):
    """The tools of a request by name. Made from definitions with `checked`."""

    def __init__(self, tools: Sequence[Tool] = ()):
        self._tools = {tool.name: tool for tool in tools}

    def __getitem__(self, name: str) -> Tool:
        return self._tools[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tools)

    def __len__(self) -> int:
        return len(self._tools)

    @property
    def definitions(self) -> list[dict[str, Any]]:
        """As templates take them."""
        return [tool.definition for tool in self.values()]


def checked(definitions: Sequence[Any]) -> Tools:
    """The tools of a list of `{"type": "function", "function": {"name", "description", "parameters", "strict"}}`.

    Raises OptionError for other shapes, names that formats cannot write or that come twice, and for hostile definitions: too
    many, too large, nested too deep, references to other documents.
    """
    if not isinstance(definitions, Sequence) or isinstance(definitions, (str, bytes)):
        raise OptionError(f"`tools` must be a list of functions, it is {type(definitions).__name__}")
    if len(definitions) > MAX_TOOLS:
        raise OptionError(f"`tools` has {len(definitions)} functions; at most {MAX_TOOLS} are accepted")
    tools = [_tool(each, f"tools[{place}]") for place, each in enumerate(definitions)]
    names = [tool.name for tool in tools]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise OptionError(f"`tools` has two functions named {twice!r}; each needs its own name")
    size = sum(len(json.dumps(tool.definition)) for tool in tools)
    if size > MAX_BYTES:
        raise OptionError(f"`tools` takes {size} bytes as JSON; at most {MAX_BYTES} are accepted")
    return Tools(tools)


def choice(value: Any, tools: Tools) -> str:
    """What `tool_choice` says: AUTO, NONE, REQUIRED or the name of a tool. Raises OptionError.

    Takes these words, a name, and OpenAI's `{"type": "function", "function": {"name": ...}}`.
    """
    if value is None:
        return AUTO if tools else NONE
    named = value
    if isinstance(value, Mapping):
        function = value.get("function", value)
        named = function.get("name") if value.get("type") == "function" and isinstance(function, Mapping) else None
        if isinstance(named, str) and named in tools:
            return named
    elif isinstance(value, str) and value in (AUTO, NONE):
        return value
    if not tools:
        raise OptionError("`tool_choice` asks for a call, but there are no `tools`")
    if isinstance(named, str) and (named == REQUIRED or named in tools):
        return named
    words = f'"{AUTO}", "{NONE}", "{REQUIRED}" or the name of one of the tools'
    raise OptionError(f"`tool_choice` is {shown_value(value)}; it must be {words}: {', '.join(tools)}")


def _tool(value: Any, where: str) -> Tool:
    if not isinstance(value, Mapping) or value.get("type", "function") != "function":
        raise OptionError(f"{where} must be of the type 'function'")
    function = value.get("function", value if "name" in value else None)
    if not isinstance(function, Mapping):
        raise OptionError(f"{where} needs a `function` with a name and parameters")
    name, description = function.get("name"), function.get("description")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise OptionError(f"{where}: the name {shown_value(name)} must have 1 to 128 letters, digits, dots, dashes and underscores")
    if description is not None and not isinstance(description, str):
        raise OptionError(f"{where}: the description of {name} must be text")
    strict = function.get("strict")
    if strict is not None and not isinstance(strict, bool):
        raise OptionError(f"{where}: `strict` of {name} must be true or false")
    parameters = function.get("parameters")
    if parameters is None:
        parameters = _EMPTY
    if not isinstance(parameters, Mapping):
        raise OptionError(f"{where}: the parameters of {name} must be a JSON schema")
    _check(parameters, f"the parameters of {name}")
    kind = parameters.get("type", "object")
    if kind != "object":
        raise OptionError(f"{where}: the parameters of {name} must be of the type 'object', not {shown_value(kind)}")
    return Tool(name, description or "", parameters, bool(strict))


def _check(schema: Any, what: str, depth: int = 0) -> None:
    """That it is JSON, not too deep, and refers to nothing outside."""
    if depth > MAX_DEPTH:
        raise OptionError(f"{what} are nested more than {MAX_DEPTH} deep")
    if isinstance(schema, Mapping):
        for key, value in schema.items():
            if not isinstance(key, str):
                raise OptionError(f"{what} have the key {shown_value(key)}, which is no text")
            if key == "$ref" and isinstance(value, str) and not value.startswith("#"):
                raise OptionError(f"{what} refer to {shown_value(value)}; only references within the schema (#/...) are followed")
            _check(value, what, depth + 1)
    elif isinstance(schema, (list, tuple)):
        for each in schema:
            _check(each, what, depth + 1)
    elif isinstance(schema, float) and schema - schema != 0:
        raise OptionError(f"{what} have the number {schema}, which JSON does not know")
    elif schema is not None and not isinstance(schema, (str, int, float)):
        raise OptionError(f"{what} have a {type(schema).__name__}; they must be JSON")


def _types(schema: Any, root: Mapping[str, Any], left: list[int]) -> frozenset[str]:
    """The types that a schema allows. `left`: one number, the schemas that may still be read; references may go in circles."""
    every = frozenset(TYPES)
    left[0] -= 1
    if not isinstance(schema, Mapping) or left[0] < 0:
        return every
    if isinstance(reference := schema.get("$ref"), str):
        return _types(_resolved(reference, root), root, left)
    found = every
    if "type" in schema:
        named = schema["type"] if isinstance(schema["type"], (list, tuple)) else [schema["type"]]
        found = frozenset(each for each in named if each in TYPES) or every
    if "const" in schema or isinstance(schema.get("enum"), (list, tuple)):
        values = [schema["const"]] if "const" in schema else schema["enum"]
        found = found & frozenset(map(type_of, values)) or found
    for word in ("anyOf", "oneOf"):
        if isinstance(inner := schema.get(word), (list, tuple)) and inner:
            found = found & frozenset[str]().union(*(_types(each, root, left) for each in inner)) or found
    for each in schema["allOf"] if isinstance(schema.get("allOf"), (list, tuple)) else ():
        found = found & _types(each, root, left) or found
    return found


def type_of(value: Any) -> str:
    """The JSON type of a value."""
    if isinstance(value, float):
        return "integer" if value.is_integer() else "number"
    kinds = ((bool, "boolean"), (int, "integer"), (str, "string"), (Mapping, "object"), ((list, tuple), "array"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "null")


def _resolved(reference: str, root: Mapping[str, Any]) -> Any:
    """What `#/$defs/name` stands for; None if nothing."""
    found: Any = root
    for part in reference.removeprefix("#").split("/")[1:]:
        found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
    return found
