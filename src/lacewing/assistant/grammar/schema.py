"""JSON schemas before they are compiled: their size, where they refer to, and whether anything finite satisfies them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from lacewing.assistant.grammar.inhabited import inhabited
from lacewing.errors import GrammarError
from lacewing.options import shown_value

_ONE = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames", "unevaluatedItems",
        "unevaluatedProperties", "additionalItems")  # fmt: skip
_SOME = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
_FORMATS = frozenset(("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"))
# One space, or a new line and what it is indented by: models that may write more get lost in it.
OWN_KEY = "x-guidance"  # llguidance's options, within a schema
STYLE = {"whitespace_pattern": r" |\r?\n[ \t]{0,128}"}
MAX_COUNT = 2**64 - 1
_LARGEST = 2**31 - 1  # what a regex can count to; no context is as long
_MOST_LEAST = 10**6
_SHAPES = (
    *((name, Mapping, "an object") for name in _NAMED),
    *((name, list | tuple, "a list") for name in (*_SOME[:4], "required", "enum")),
    ("$ref", str, "a string"),
    ("pattern", str, "a string"),
)
Schema = Mapping[str, Any] | bool


def check_schema(schema: Any, max_depth: int) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """A copy to compile, without what does not bind, and its regexes with their places.

    Raises GrammarError that names the place.
    """
    _check_nesting(schema, max_depth)
    if schema is False:
        raise GrammarError("nothing satisfies the JSON schema: it is false")
    if schema is True:
        schema = {}
    places = _places(schema)
    for place, each in places.items():
        _check(place, each, places)
    groups = {place: _needs(place, each) for place, each in places.items()}
    alive = inhabited(groups)
    if "#" not in alive:
        dead = next((place for place, each in places.items() if place not in alive and _refers(each)), "#")
        raise GrammarError(f"nothing satisfies the JSON schema, at {dead}: it needs itself within itself, without end")
    patterns = [found for place, each in places.items() for found in _patterns(place, each)]
    return {**_bare(schema), OWN_KEY: STYLE}, patterns


def _patterns(place: str, schema: Any) -> list[tuple[str, str]]:
    if isinstance(schema, bool):
        return []
    own = [(f"{place}/pattern", schema["pattern"])] if "pattern" in schema else []
    return own + [(f"{place}/patternProperties", name) for name in schema.get("patternProperties", ())]


def walk(place: str, schema: Any) -> Iterator[tuple[str, Any]]:
    """A schema that stands at a place and all within it, each with the JSON pointer to it, outer ones first."""
    stack = [(place, schema)]
    while stack:
        place, each = stack.pop()
        yield place, each
        if isinstance(each, Mapping):
            stack += reversed(list(parts_of(place, each)))


def _places(root: Any) -> dict[str, Any]:
    """All schemas within one, and those that it refers to at places where none is expected."""
    found = dict(walk("#", root))
    todo = list(found.values())
    while todo:
        each = todo.pop()
        target = _target(each.get("$ref")) if isinstance(each, Mapping) else ""
        if target.startswith("#/") and target not in found and (there := _resolved(root, target)) is not None:
            more = {place: part for place, part in walk(target, there) if place not in found}
            found |= more
            todo += more.values()
    return found


def _resolved(root: Any, target: str) -> Any:
    """What stands at a JSON pointer; None: nothing that could be a schema."""
    for name in target[2:].split("/"):
        key = name.replace("~1", "/").replace("~0", "~")
        if isinstance(root, Mapping) and key in root:
            root = root[key]
        elif isinstance(root, list | tuple) and key.isdecimal() and int(key[:9]) < len(root):
            root = root[int(key[:9])]
        else:
            return None
    return root if isinstance(root, Mapping | bool) else None


def parts_of(place: str, schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The schemas directly within one, each with the pointer to it."""
    for name, value in schema.items():
        if name in _SOME and isinstance(value, Sequence) and not isinstance(value, str):
            yield from ((f"{place}/{name}/{index}", each) for index, each in enumerate(value))
        elif name in _ONE:
            yield f"{place}/{name}", value
        elif name in _NAMED and isinstance(value, Mapping):
            yield from ((f"{place}/{name}/{_escaped(str(key))}", each) for key, each in value.items())


def _check_nesting(value: Any, max_depth: int) -> None:
    stack = [(value, 1, "#")]
    while stack:
        each, depth, place = stack.pop()
        if depth > max_depth:
            raise GrammarError(f"the JSON schema is nested more than {max_depth} deep, at {place[:200]}")
        if isinstance(each, Mapping):
            stack += [(part, depth + 1, f"{place}/{_escaped(str(name))}") for name, part in each.items()]
        elif isinstance(each, list | tuple):
            stack += [(part, depth + 1, f"{place}/{index}") for index, part in enumerate(each)]


def _check(place: str, schema: Any, places: Mapping[str, Any]) -> None:
    if isinstance(schema, bool):
        return
    if not isinstance(schema, Mapping):
        raise GrammarError(f"the JSON schema has {shown_value(schema, 60)} at {place}; it must be an object, true or false")
    _check_shapes(place, schema)
    for name in _COUNTS:
        count = schema.get(name, 0)
        whole = isinstance(count, int | float) and not isinstance(count, bool) and count == count // 1
        if not whole or not 0 <= count <= MAX_COUNT:
            raise GrammarError(f"the JSON schema has {shown_value(count, 60)} at {place}/{name}; it must be from 0 to 2^64-1")
        if name.startswith("min") and count > _MOST_LEAST:
            raise GrammarError(f"the JSON schema has {count} at {place}/{name}; no answer is as long")
    if schema.get("minProperties", 0) > max(1, len(schema.get("required") or ())):
        raise GrammarError(
            f"the JSON schema has minProperties at {place}, more than the properties that are required; "
            "this cannot be enforced, as other names may repeat: name them in `required`"
        )
    reference = schema.get("$ref")
    if reference is not None and _target(reference) not in places:
        raise GrammarError(f"the JSON schema has no place {shown_value(reference, 100)}, to which {place}/$ref refers")


def _check_shapes(place: str, schema: Mapping[str, Any]) -> None:
    for name, kind, what in _SHAPES:
        if name in schema and not isinstance(schema[name], kind):
            found = shown_value(schema[name], 60)
            raise GrammarError(f"the JSON schema has {found} at {place}/{name}; it must be {what}")
    if not all(isinstance(name, str) for name in (*schema, *schema.get("required", ()), *schema.get("properties", ()))):
        raise GrammarError(f"the JSON schema has a name at {place} that is no string")


def _target(reference: Any) -> str:
    """A reference as one of our places."""
    text = unquote(reference) if isinstance(reference, str) else ""
    return "#" if text == "#/" else text


def _refers(schema: Any) -> bool:
    return isinstance(schema, Mapping) and "$ref" in schema


def _needs(place: str, schema: Any) -> list[list[str]]:
    """What a finite value of a schema takes: of each of these lists, one place that has a finite value."""
    if isinstance(schema, bool):
        return [] if schema else [[]]
    needs = [[_target(schema["$ref"])]] if "$ref" in schema else []
    for name in ("anyOf", "oneOf"):
        if isinstance(schema.get(name), list | tuple):
            needs.append([f"{place}/{name}/{index}" for index in range(len(schema[name]))])
    needs += [[f"{place}/allOf/{index}"] for index in range(len(schema.get("allOf") or ()))]
    if schema.get("type") in ("object", ["object"]):
        known = schema.get("properties") or {}
        for name in schema.get("required") or ():
            if name in known:
                needs.append([f"{place}/properties/{_escaped(str(name))}"])
            elif isinstance(schema.get("additionalProperties"), Mapping) and not schema.get("patternProperties"):
                needs.append([f"{place}/additionalProperties"])
    if schema.get("type") in ("array", ["array"]):
        least, first = int(schema.get("minItems", 0)), schema.get("prefixItems") or ()
        needs += [[f"{place}/prefixItems/{index}"] for index in range(min(least, len(first)))]
        if least > len(first) and isinstance(schema.get("items"), Mapping | bool):
            needs.append([f"{place}/items"])
    return needs


def _bare(schema: Any) -> Any:
    """Without keywords that bind nothing, which the compiler would refuse, and counts as it takes them."""
    if not isinstance(schema, Mapping):
        return schema
    found: dict[str, Any] = {}
    for name, value in schema.items():
        if name == OWN_KEY or (name == "uniqueItems" and value is False) or (name == "format" and value not in _FORMATS):
            continue
        if name in _COUNTS:
            if name.startswith("max") and value > _LARGEST:
                continue
            found[name] = int(value)
        elif name in _SOME and isinstance(value, list | tuple):
            found[name] = [_bare(each) for each in value]
        elif name in _ONE:
            found[name] = _bare(value)
        elif name in _NAMED and isinstance(value, Mapping):
            found[name] = {key: _bare(each) for key, each in value.items()}
        else:
            found[name] = value
    return found


def _escaped(name: str) -> str:
    """A name within a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")
