import pytest

from lacewing.assistant.tools.definitions import MAX_BYTES, MAX_DEPTH, MAX_TOOLS, TYPES, Tool, checked, choice
from lacewing.errors import OptionError


def function(name="f", **others):
    return {"type": "function", "function": {"name": name, **others}}


def test_a_definition_is_what_templates_take():
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    tools = checked([function("f", description="Does it", parameters=schema, strict=True), function("g")])
    assert list(tools) == ["f", "g"] and tools["f"].strict and not tools["g"].strict
    assert tools["f"].required == {"a"} and tools["g"].required == set()
    assert tools.definitions[0] == function("f", description="Does it", parameters=schema)
    assert tools["g"].parameters == {"type": "object", "properties": {}}


def nested(depth):
    inner = {}
    for _ in range(depth):
        inner = {"not": inner}
    return inner


@pytest.mark.parametrize(
    ("definitions", "told"),
    [
        ("f", "list of functions"),
        ([1], r"tools\[0\] must be of the type 'function'"),
        ([function(), {"type": "retrieval"}], r"tools\[1\] must be of the type 'function'"),
        ([{"type": "function"}], "needs a `function`"),
        ([function(None)], "the name None"),
        ([function("a b")], "must have 1 to 128 letters"),
        ([function("x" * 129)], "must have 1 to 128 letters"),
        ([function('f"}')], "must have 1 to 128 letters"),
        ([function(), function()], "two functions named 'f'"),
        ([function(description=3)], "description of f must be text"),
        ([function(strict="yes")], "`strict` of f"),
        ([function(parameters=[])], "must be a JSON schema"),
        ([function(parameters={"type": "array"})], "of the type 'object', not 'array'"),
        ([function(parameters={"properties": {"a": {"$ref": "http://example.com/x"}}})], "only references within"),
        ([function(parameters={"properties": {"a": {"minimum": float("inf")}}})], "the number inf"),
        ([function(parameters={"properties": {"a": {1: 2}}})], "which is no text"),
        ([function(parameters={"properties": {"a": {"enum": [b"x"]}}})], "a bytes; they must be JSON"),
        ([function(parameters=nested(MAX_DEPTH + 1))], "nested more than"),
        ([function(parameters=nested(20_000))], "nested more than"),
        ([function(description="x" * MAX_BYTES)], "bytes as JSON"),
        ([function(f"f{each}") for each in range(MAX_TOOLS + 1)], f"at most {MAX_TOOLS}"),
    ],
)
def test_other_definitions_and_hostile_ones_are_refused(definitions, told):
    with pytest.raises(OptionError, match=told):
        checked(definitions)


TWO = checked([function("f"), function("g")])


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        (None, "auto"),
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ("g", "g"),
        ({"type": "function", "function": {"name": "f"}}, "f"),
        ({"type": "function", "name": "f"}, "f"),
    ],
)
def test_a_choice(value, meant):
    assert choice(value, TWO) == meant


@pytest.mark.parametrize("value", ["h", "any", 1, {}, {"type": "function"}, {"type": "function", "function": {"name": "h"}}, []])
def test_another_choice_is_refused(value):
    with pytest.raises(OptionError, match=r"`tool_choice` is .*f, g"):
        choice(value, TWO)


def test_a_choice_without_tools():
    assert choice(None, checked([])) == choice("none", checked([])) == "none"
    with pytest.raises(OptionError, match="there are no `tools`"):
        choice("required", checked([]))


def test_the_types_of_a_parameter():
    schema = {
        "$defs": {"unit": {"enum": ["C", "F"]}, "loop": {"$ref": "#/$defs/loop"}},
        "properties": {
            "text": {"type": "string"},
            "unit": {"$ref": "#/$defs/unit"},
            "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "two": {"type": ["string", "null"]},
            "all": {"allOf": [{"type": ["string", "number"]}, {"type": "number"}]},
            "const": {"const": 3},
            "loop": {"$ref": "#/$defs/loop"},
            "lost": {"$ref": "#/$defs/nowhere"},
            "any": {},
            "true": True,
            "odd": {"type": "date"},
        },
    }
    tool = Tool("f", "", schema)
    every = frozenset(TYPES)
    expected = {
        "text": {"string"}, "unit": {"string"}, "maybe": {"integer", "null"}, "two": {"string", "null"}, "all": {"number"},
        "const": {"integer"}, "loop": every, "lost": every, "any": every, "true": every, "odd": every, "unknown": {"string"},
    }  # fmt: skip
    assert {name: tool.types(name) for name in expected} == expected


def test_a_schema_that_grows_when_it_is_followed_takes_no_time():
    both = {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]}
    tool = Tool("f", "", {"$defs": {"a": both}, "properties": {"x": both}})
    assert tool.types("x") == frozenset(TYPES)
