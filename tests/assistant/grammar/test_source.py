"""Grammars that are refused before anything is generated, soon and with the place; and what they are compiled to."""

from __future__ import annotations

import json
import time

import psutil
import pytest

from lacewing.assistant.grammar.compiled import SECONDS, compile_grammar
from lacewing.assistant.grammar.source import MAX_BYTES, Grammar
from lacewing.errors import GrammarError, OptionError
from tests.assistant.grammar.walking import follows, kinds

KIND = kinds()["bytes"]


def compiled(grammar: Grammar):
    return compile_grammar(grammar, KIND.tokenizer, KIND.size)


def says(grammar: Grammar, text: str) -> bool:
    return follows(compiled(grammar), KIND, KIND.tokenizer.encode(text))


def nested(depth: int) -> dict:
    schema: dict = {"type": "integer"}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


def endless(count: int) -> dict:
    """Definitions that refer to each other in a circle."""
    return {"$ref": "#/$defs/0", "$defs": {str(at): {"$ref": f"#/$defs/{(at + 1) % count}"} for at in range(count)}}


def chain(count: int) -> dict:
    """Definitions that refer to each other in a row."""
    found: dict = {str(at): {"$ref": f"#/$defs/{at + 1}"} for at in range(count)}
    return {"$ref": "#/$defs/0", "$defs": {**found, str(count): {"type": "string"}}}


CASES = [
    # larger, or deeper
    (lambda: Grammar.regex("a" * (MAX_BYTES + 1)), "the regex has 65537 bytes; at most 65536"),
    (lambda: Grammar.json_schema({"enum": ["é" * 40000]}), "JSON schema has 80.* bytes; at most 65536"),
    (lambda: Grammar.json_schema("[" * 60000), "no JSON"),
    (lambda: Grammar.regex("(" * 60000), "nested more than 64 deep, at character 65"),
    (lambda: Grammar.lark("start: " + "(" * 60000), "nested more than 64 deep, at character 72"),
    (lambda: Grammar.gbnf("root ::= " + "(" * 60000), "line 1, column 75: the grammar is nested more than 64 deep"),
    (lambda: Grammar.json_schema(nested(64)), "nested more than 64 deep, at #/items/items"),
    (lambda: Grammar.json_schema({"type": "string", "pattern": "(" * 60000}), "#/pattern.* than 64 deep, at character 65"),
    # malformed
    (lambda: Grammar.regex(""), "the regex is ''; it must be text"),
    (lambda: Grammar.regex("a(b"), "wrong at character 2: unclosed group"),
    (lambda: Grammar.regex("[z-a]"), "wrong at character 2: invalid character class range"),
    (lambda: Grammar.regex("a(?=b)"), "wrong at character 2: look-around"),
    (lambda: Grammar.regex("a\0"), "a character that is no text, at character 2"),
    (lambda: Grammar.regex(7), "the regex is 7; it must be text"),
    (lambda: Grammar.lark("start: ab\nab: cd\n"), 'line 2, column 5: unknown name: "cd"'),
    (lambda: Grammar.lark('start: "a" )'), r"line 1, column 12: .*'\)'"),
    (lambda: Grammar.lark('begin: "a"'), "no start rule"),
    (lambda: Grammar.lark("start: /a(/"), "line 1, column 8: the regex is wrong at character 2: unclosed group"),
    (lambda: Grammar.json_schema("{"), "the JSON schema is no JSON: .*char 1"),
    (lambda: Grammar.json_schema("[]"), r"the JSON schema has \[\] at #; it must be an object, true or false"),
    (lambda: Grammar.json_schema({"items": {"type": "text"}}), "at #/items: Invalid type: text"),
    (lambda: Grammar.json_schema({"properties": {"a/b": {"pattern": "x("}}}), "at #/properties/a~1b: .* 2: unclosed group"),
    (lambda: Grammar.json_schema({"properties": {"a": 3}}), "has 3 at #/properties/a; it must be an object"),
    (lambda: Grammar.json_schema({"required": "a"}), "has 'a' at #/required; it must be a list"),
    (lambda: Grammar.json_schema({"allOf": {}}), "has {} at #/allOf; it must be a list"),
    (lambda: Grammar.json_schema({"$defs": []}), r"has \[\] at #/\$defs; it must be an object"),
    (lambda: Grammar.json_schema({"enum": [float("nan")]}), "cannot be written as JSON"),
    (lambda: Grammar.json_schema({"const": {1, 2}}), "cannot be written as JSON"),
    (lambda: Grammar.json_schema({"properties": {3: {}}}), "has a name at # that is no string"),
    # counts
    (lambda: Grammar.json_schema({"maxItems": 2**64}), "18446744073709551616 at #/maxItems; it must be from 0 to 2"),
    (lambda: Grammar.json_schema({"items": {"maxItems": -1}}), "-1 at #/items/maxItems"),
    (lambda: Grammar.json_schema({"maxItems": 1.5}), "1.5 at #/maxItems"),
    (lambda: Grammar.json_schema({"maxLength": True}), "True at #/maxLength"),
    (lambda: Grammar.json_schema({"maxLength": float("inf")}), "inf at #/maxLength"),
    (lambda: Grammar.json_schema({"minItems": 2**64 - 1}), "at #/minItems; no answer is as long"),
    # references
    (lambda: Grammar.json_schema({"$ref": "http://example.com/a"}), r"no place 'http://example.com/a', to which #/\$ref refers"),
    (lambda: Grammar.json_schema({"items": {"$ref": "#/$defs/a"}}), r"no place '#/\$defs/a', to which #/items/\$ref refers"),
    (lambda: Grammar.json_schema({"$ref": "#"}), "nothing satisfies the JSON schema, at #: it needs itself"),
    (lambda: Grammar.json_schema(endless(3)), "nothing satisfies the JSON schema, at #: it needs itself"),
    (lambda: Grammar.json_schema(endless(1200)), "nothing satisfies the JSON schema"),
    # what nothing satisfies
    (lambda: Grammar.json_schema(False), "nothing satisfies the JSON schema: it is false"),
    (lambda: Grammar.json_schema({"enum": []}), "Unsatisfiable schema"),
    (lambda: Grammar.json_schema({"items": {"type": "integer", "minimum": 3, "maximum": 2}, "minItems": 1, "type": "array"}),
     r"at #/items: Unsatisfiable schema: minimum \(3\) is greater than maximum \(2\)"),
    (lambda: Grammar.json_schema({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}),
     "at #/properties/a: it needs itself"),
    (lambda: Grammar.json_schema({"type": "array", "items": {"$ref": "#"}, "minItems": 1}), "at #/items: it needs itself"),
    (lambda: Grammar.json_schema({"type": "object", "required": ["a"], "additionalProperties": False}), "'a' is unsatisfiable"),
    (lambda: Grammar.lark("start: start"), "nothing satisfies the grammar"),
    (lambda: Grammar.gbnf('root ::= "a" b\nb ::= "c" root | b "d"\n'), "nothing satisfies the grammar: its rule root needs itself"),
    # what cannot be enforced
    (lambda: Grammar.json_schema({"items": {"uniqueItems": True}}), 'at #/items: Unimplemented keys: ."uniqueItems"'),
    (lambda: Grammar.json_schema({"anyOf": [{"type": "null"}, {"not": {"type": "null"}}]}), "at #/anyOf/1: Unimplemented keys"),
    (lambda: Grammar.json_schema({"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]}), "oneOf"),
    (lambda: Grammar.json_schema({"type": "object", "minProperties": 2}), "minProperties at #, .* name them in `required`"),
]  # fmt: skip


@pytest.mark.parametrize("place", range(len(CASES)))
def test_what_is_refused_says_where_and_soon(place):
    make, message = CASES[place]
    began = time.process_time()
    with pytest.raises(GrammarError, match=message) as told:
        compiled(make())
    assert time.process_time() - began < SECONDS and len(str(told.value)) < 500 and "\n" not in str(told.value)
    assert isinstance(told.value, OptionError)


HEAVY = [
    lambda: Grammar.json_schema({"type": "array", "maxItems": 2**64 - 1, "items": {"type": "string", "maxLength": 2**64 - 1}}),
    lambda: Grammar.json_schema({"type": "array", "minItems": 10**6, "items": nested(40)}),
    lambda: Grammar.json_schema({"type": "string", "minLength": 10**6}),
    lambda: Grammar.json_schema({"type": "object", "properties": {f"k{at}": {"type": "string"} for at in range(1500)}}),
    lambda: Grammar.json_schema(
        {"anyOf": [{"properties": {f"k{at}": {"pattern": "(a|b)*a(a|b){12}"}}, "type": "object"} for at in range(500)]}
    ),
    lambda: Grammar.json_schema({"enum": ["x" * at for at in range(340)]}),
    lambda: Grammar.json_schema({"allOf": [{"properties": {f"k{at}": {"maxLength": at}}} for at in range(900)]}),
    lambda: Grammar.regex("(.{1,1000}){1,1000}"),
    lambda: Grammar.regex("(a?){5000}a{5000}"),
    lambda: Grammar.regex("(?:[a-z]{1,200}[0-9]{1,200}){1,1000}x"),
    lambda: Grammar.regex("|".join(rf"(a|b)*a(a|b){{{at % 20}}}" for at in range(3000))),
    lambda: Grammar.lark("start: " + " | ".join(rf"/(a|b)*a(a|b){{{at}}}/" for at in range(1000))),
    lambda: Grammar.lark("\n".join(f"r{at}: r{at + 1} r{at + 1}" for at in range(30)) + '\nr30: "a"\nstart: r0'),
    lambda: Grammar.gbnf("root ::= r0\n" + "\n".join(f"r{at} ::= r{at + 1} r{at + 1}?" for at in range(30)) + '\nr30 ::= "a"\n'),
    lambda: Grammar.gbnf("root ::= r0\n" + "\n".join(f"r{at} ::= r{at + 1}" for at in range(3000)) + '\nr3000 ::= "a"\n'),
    lambda: Grammar.gbnf("root ::= " + " ".join("[a-z]{0,9}" for _ in range(5000))),
    lambda: Grammar.lark("start: r0\n" + "\n".join(f'r{at}: "a" r{at + 1} ' for at in range(3000)) + '\nr3000: "b"'),
    lambda: Grammar.lark("start: R0\n" + "\n".join(f"R{at}: R{at + 1}" for at in range(4500)) + '\nR4500: "abab"'),
    lambda: Grammar.json_schema(chain(2500)),
]


@pytest.mark.parametrize("place", range(len(HEAVY)))
def test_what_is_heavy_is_refused_or_followed_within_bounds(place):
    process = psutil.Process()
    memory, began = process.memory_info().rss, time.process_time()
    try:
        constraint = compiled(HEAVY[place]()).follow(KIND.tokenizer.stop_ids)
        for token in KIND.tokenizer.encode('{"k1": "abab') if place < 7 else KIND.tokenizer.encode("abababababab"):
            mask = constraint.mask()
            if not constraint.accept(token):
                break
        assert mask.any()
    except GrammarError as error:
        assert len(str(error)) < 500
    assert time.process_time() - began < 2 * SECONDS
    assert process.memory_info().rss - memory < 200 << 20


def test_json_is_written_as_people_do():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a"], "additionalProperties": False}
    grammar = Grammar.json_schema(json.dumps(schema))
    assert grammar == Grammar.json_schema(schema) and hash(grammar) == hash(Grammar.json_schema(schema))
    for text in ('{"a":1}', '{"a": 1, "b": [true, null]}', '{\n  "a": 1,\n  "b": {\n    "c": 2\n  }\n}'):
        assert says(grammar, text), text
    for text in ('{"b": 1, "a": 1}', '{"a":  1}', ' {"a": 1}', '{"a": 1}\n', '{"a": 1}{', '{"a": 01}', '{\n\n"a": 1}', ""):
        assert not says(grammar, text), text


def test_what_binds_nothing_is_no_reason_to_refuse():
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "T", "description": "d", "type": "object",
        "properties": {"format": {"type": "string", "format": "password", "default": "x", "examples": ["y"]},
                       "uniqueItems": {"type": "array", "uniqueItems": False, "maxItems": 2.0, "items": {"type": "boolean"}}},
        "required": ["format"], "x-guidance": {"whitespace_pattern": "x*"},
        "components": {"schemas": {"a": {"type": "null"}}}, "additionalProperties": {"$ref": "#/components/schemas/a"},
    }  # fmt: skip
    grammar = Grammar.json_schema(schema)
    assert says(grammar, '{"format": "p", "uniqueItems": [true, true], "z": null}')
    assert not says(grammar, '{"format": "p", "uniqueItems": [true, true, false]}') and not says(grammar, 'x{"format": "p"}')


def test_json_mode_is_an_object():
    assert says(Grammar.json_object(), '{"a": [1, {}]}') and not says(Grammar.json_object(), "[1]")


def test_a_grammar_is_gbnf_or_lark():
    assert Grammar.of_text('root ::= "a" | "b"') == Grammar.gbnf('root ::= "a" | "b"')
    assert Grammar.of_text('start: "::="') == Grammar.lark('start: "::="')
    with pytest.raises(GrammarError, match="it must be text"):
        Grammar.of_text(None)


def test_brackets_that_open_nothing_count_for_nothing():
    assert says(Grammar.regex(r"\(*[((]*" + r"[\](]" * 70 + r"\(" * 70), "(((" + "(" * 140)
    assert says(Grammar.lark("start: " + '"(" /[(]\\(/ ' * 70 + "// ((((" + "(" * 70), "(((" * 70)
