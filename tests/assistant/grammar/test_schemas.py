"""Answers at random, by schemas at random: every one that has ended is valid. The oracle is `jsonschema`."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lacewing.assistant.grammar.compiled import compile_grammar
from lacewing.assistant.grammar.inhabited import inhabited
from lacewing.assistant.grammar.source import Grammar
from lacewing.errors import GrammarError
from tests.assistant.grammar.walking import kinds, walk

KINDS = kinds()
NAMES = st.sampled_from(["a", "b", "name", "naïve", "x y", '"', "世", "a/b", "~"])
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-1000, 1000), st.sampled_from(["", "a", 'q"', "é\n", "\\"]))
PATTERNS = st.sampled_from(["^[a-z]{2,4}$", "^a.*z$", r"^\d{3}-\d{2}$", "b", "^(x|yy)*$", r"^[^\s]+$"])


def _numbers(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    low = st.integers(-500, 500)
    bound = st.tuples(low, st.integers(0, 300)).map(lambda each: {"minimum": each[0], "maximum": sum(each)})
    return st.one_of(st.just({}), bound, low.map(lambda each: {"exclusiveMinimum": each})).map(lambda each: {"type": kind, **each})


def _strings() -> st.SearchStrategy[dict[str, Any]]:
    lengths = st.tuples(st.integers(0, 4), st.integers(0, 6)).map(lambda each: {"minLength": each[0], "maxLength": sum(each)})
    patterns = PATTERNS.map(lambda each: {"pattern": each})
    formats = st.sampled_from(["date", "time", "uuid", "ipv4", "password"]).map(lambda each: {"format": each})
    return st.one_of(st.just({}), lengths, patterns, formats).map(lambda each: {"type": "string", **each})


def _arrays(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    counts = st.tuples(st.integers(0, 2), st.integers(0, 3)).map(lambda each: {"minItems": each[0], "maxItems": sum(each)})
    first = st.lists(inner, min_size=1, max_size=2).map(lambda each: {"prefixItems": each})
    parts = st.tuples(counts, st.one_of(st.just({}), first), inner)
    return parts.map(lambda each: {"type": "array", **each[0], **each[1], "items": each[2]})


@st.composite
def _objects(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> dict[str, Any]:
    properties = draw(st.dictionaries(NAMES, inner, max_size=3))
    required = [name for name in properties if draw(st.booleans())]
    found: dict[str, Any] = {"type": "object", "properties": properties, "required": required}
    others = draw(st.one_of(st.none(), st.just(False), inner))
    return found if others is None else {**found, "additionalProperties": others}


LEAVES = st.one_of(
    _numbers("integer"), _numbers("number"), _strings(), st.just({"type": "boolean"}), st.just({"type": ["string", "null"]}),
    SCALARS.map(lambda each: {"const": each}), st.lists(SCALARS, min_size=1, max_size=4).map(lambda each: {"enum": each}),
    st.just({"$ref": "#/$defs/tree"}),
)  # fmt: skip
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        _arrays(inner), _objects(inner), st.lists(inner, min_size=1, max_size=3).map(lambda each: {"anyOf": each})
    ),
    max_leaves=6,
)
TREE = {
    "type": "object",
    "properties": {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
    "required": ["value"], "additionalProperties": False,
}  # fmt: skip


def valid(text: str, schema: Any) -> None:
    jsonschema.Draft202012Validator(schema).validate(json.loads(text))


@pytest.mark.parametrize("name", ["bytes", "spm", "metaspace"])
@given(schema=SCHEMAS, seed=st.integers(0, 10**6))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_every_answer_that_has_ended_is_valid(name, schema, seed):
    whole = {**schema, "$defs": {"tree": TREE}}
    try:
        compiled = compile_grammar(Grammar.json_schema(whole), KINDS[name].tokenizer, KINDS[name].size)
    except GrammarError as error:
        assert "nsatisfiable" in str(error) or "nothing satisfies" in str(error)  # such as a pattern that no format has
        return
    ids, ended = walk(compiled, KINDS[name], seed)
    assume(ended)
    text = KINDS[name].tokenizer.decode(ids)
    valid(text, whole)


@pytest.mark.parametrize("step", ["0.1", "0.25", "3"])
def test_multiples(step):
    schema = {"type": "number", "multipleOf": float(step), "minimum": -10, "maximum": 50}
    compiled = compile_grammar(Grammar.json_schema(schema), KINDS["bytes"].tokenizer, KINDS["bytes"].size)
    for seed in range(30):
        ids, ended = walk(compiled, KINDS["bytes"], seed)
        value = Decimal(KINDS["bytes"].tokenizer.decode(ids))
        assert not ended or (value % Decimal(step) == 0 and -10 <= value <= 50)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"allOf": [{"properties": {"a": {"type": "integer"}}}, {"required": ["a"], "type": "object"}]},
        {"oneOf": [{"type": "integer"}, {"type": "string", "maxLength": 4}]},
        {"oneOf": [
            {"type": "object", "properties": {"kind": {"const": "a"}, "x": {"type": "integer"}}, "required": ["kind", "x"]},
            {"type": "object", "properties": {"kind": {"const": "b"}, "y": {"type": "string"}}, "required": ["kind", "y"]},
        ]},
        {"type": "object", "patternProperties": {"^n_": {"type": "integer"}}, "additionalProperties": False},
        {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "minProperties": 1, "maxProperties": 1},
        {"type": "integer", "minimum": -5, "exclusiveMaximum": 17, "multipleOf": 3},
        {"type": "string", "minLength": 2, "maxLength": 3, "pattern": "^[😀é]+$"},
    ],
)  # fmt: skip
def test_what_people_write(schema):
    compiled = compile_grammar(Grammar.json_schema(schema), KINDS["bytes"].tokenizer, KINDS["bytes"].size)
    finished = 0
    for seed in range(40):
        ids, ended = walk(compiled, KINDS["bytes"], seed)
        if ended:
            finished += 1
            valid(KINDS["bytes"].tokenizer.decode(ids), schema)
    assert finished > 20


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_what_is_inhabited_by_trying_again_and_again(data):
    names = list(range(data.draw(st.integers(1, 8))))
    groups = st.lists(st.lists(st.sampled_from(names), max_size=3), max_size=3)
    needs = {name: data.draw(groups) for name in names}
    found: set[int] = set()
    for _ in names:
        found = {name for name in names if all(any(each in found for each in group) for group in needs[name])}
    assert inhabited(needs) == found
