"""Models that answer by a grammar, on every kind of device: whatever has ended is valid, whoever else is served."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import lacewing
from lacewing.assistant.grammar.compiled import compile_grammar
from lacewing.assistant.grammar.source import Grammar
from lacewing.engine.engine import Request
from lacewing.errors import GrammarError, OptionError
from lacewing.options import Sampling

SCHEMAS = [
    {"type": "object",
     "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 150}},
     "required": ["name", "age"], "additionalProperties": False},
    {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 2, "maxItems": 4},
    {"anyOf": [{"type": "boolean"}, {"type": "string", "format": "date"}]},
]  # fmt: skip
SAMPLINGS = [
    Sampling(temperature=0, max_tokens=60),
    Sampling(temperature=1, top_k=40, seed=1, max_tokens=60),
    Sampling(temperature=1.3, top_k=0, seed=2, max_tokens=60),
    Sampling(temperature=1, top_k=30, seed=3, logprobs=3, max_tokens=60),
]
DEVICES = ["cpu", "reference", pytest.param("webgpu", marks=pytest.mark.gpu)]


def ids_of(stream) -> list[int]:
    return [token.id for token in stream]


def request(model: lacewing.Model, prompt: str, sampling: Sampling, grammar: Grammar | None) -> Request:
    tokenizer, size = model.tokenizer, model.engine.vocab_size
    constraint = None if grammar is None else compile_grammar(grammar, tokenizer, size).follow(tokenizer.stop_ids, start=False)
    return Request(tokenizer.encode_prompt(prompt), sampling, tokenizer.stop_ids, constraint=constraint)


@pytest.mark.parametrize("backend", DEVICES)
def test_a_mixed_batch(backend: str, tiny_path: Path):
    """Those without a grammar say what they say alone; those with one something valid if they end, and the likeliest of that."""
    prompts = ["hello", "the world is", "a", "hello there", "once"]
    grammars = [Grammar.json_schema(SCHEMAS[1]), None, Grammar.regex("[ab]{3,9}c"), Grammar.gbnf('root ::= "x"+ "."'), None]
    samplings = [SAMPLINGS[1], SAMPLINGS[0], SAMPLINGS[0], SAMPLINGS[3], SAMPLINGS[1]]
    with lacewing.load(tiny_path, backend=backend, context=256, sequences=5) as model:
        alone = []
        for prompt, sampling, grammar in zip(prompts, samplings, grammars, strict=True):
            model.engine.forget()
            alone.append(ids_of(model.engine.submit(request(model, prompt, sampling, grammar))))
        model.engine.forget()
        asked = [request(model, *each) for each in zip(prompts, samplings, grammars, strict=True)]
        streams = [model.engine.submit(each) for each in asked]
        together = [ids_of(stream) for stream in streams]
        if backend == "cpu":  # which alone promises bits
            assert together == alone
        texts = [model.tokenizer.decode(ids, continuation=True) for ids in together]
        assert all(stream.finish_reason in ("stop", "length") for stream in streams)
        if streams[0].finish_reason == "stop":
            jsonschema.validate(json.loads(texts[0]), SCHEMAS[1])
        assert streams[2].finish_reason == "length" or re.fullmatch("[ab]{3,9}c", texts[2])
        assert re.fullmatch(r"[ab]{0,9}c?", texts[2]) and re.fullmatch(r"x*\.?", texts[3])
        self_check(model, prompts[2], together[2], grammars[2])


def self_check(model: lacewing.Model, prompt: str, ids: list[int], grammar: Grammar) -> None:
    """Greedy tokens by hand: the largest logit of all rows that the grammar allows."""
    constraint = request(model, prompt, SAMPLINGS[0], grammar).constraint
    logits = model.engine.logits([*model.tokenizer.encode_prompt(prompt), *ids])[-len(ids) - 1 :]
    for row, token in zip(logits, ids, strict=False):
        bits = np.unpackbits(constraint.mask().view(np.uint8), bitorder="little")[: len(row)].astype(bool)
        best = np.where(bits, row, -np.inf)
        assert best[token] >= best.max() - 1e-4
        assert constraint.accept(token)


@pytest.fixture(scope="module", params=["cpu", pytest.param("webgpu", marks=pytest.mark.gpu)])
def smollm2(request: pytest.FixtureRequest, smollm2_path: Path):
    with lacewing.load(smollm2_path, backend=request.param, context=512, sequences=4) as model:
        yield model


def test_a_model_of_135_million_weights_writes_json(smollm2: lacewing.Model):
    """Several at a time; most end, and all that have are valid."""
    asked = [
        (prompt, sampling, schema)
        for schema, prompt in zip(SCHEMAS, ("A person as JSON: ", "Colours: ", "Today is "), strict=True)
        for sampling in SAMPLINGS
    ]
    if smollm2.backend.name == "webgpu":
        asked = asked[::5]  # on a GPU that a CPU plays
    streams = [
        smollm2.engine.submit(request(smollm2, prompt, sampling, Grammar.json_schema(schema))) for prompt, sampling, schema in asked
    ]
    ended = 0
    for stream, (_, _, schema) in zip(streams, asked, strict=True):
        text = smollm2.tokenizer.decode(ids_of(stream), continuation=True)
        if stream.finish_reason == "stop":
            ended += 1
            jsonschema.Draft202012Validator(schema).validate(json.loads(text))
    assert ended >= len(asked) * 3 // 4


def test_the_api(tiny_path: Path):
    """Of chats and texts, streamed, several at once and in event loops; what cannot be is refused when it is asked."""
    with lacewing.load(tiny_path, backend="cpu", context=512, sequences=2) as model:
        chosen = {"temperature": 1, "seed": 5, "max_tokens": 60}
        messages = [{"role": "user", "content": "hello"}]
        answer = model.chat(messages, json_schema=SCHEMAS[1], **chosen)
        text = "".join(answer)
        assert answer.finish_reason == "length" or json.loads(text)
        for options, pattern in (
            ({"regex": "(yes|no)"}, "yes|no"),
            ({"grammar": 'root ::= "a" | "b"'}, "a|b"),
            ({"grammar": 'start: "a" | "b"'}, "a|b"),
            ({"json_schema": '{"enum": [1, 2]}'}, "1|2"),
            ({"constraint": Grammar.regex("yes|no")}, "yes|no"),
        ):
            assert re.fullmatch(pattern, "".join(model.chat(messages, **options, **chosen)))
            if "constraint" not in options:
                assert re.fullmatch(pattern, model.generate("hello", **options, **chosen))
                assert all(re.fullmatch(pattern, each) for each in model.generate(["a", "b"], **options, **chosen))
        assert "".join(model.chat(messages, json=True, **chosen)).startswith("{")
        assert asyncio.run(model.agenerate("a", regex="x{3}", **chosen)) == "xxx"
        for call in (model.chat, lambda _, **options: model.generate("a", **options)):
            with pytest.raises(GrammarError, match="unclosed group"):
                call(messages, regex="(")
            with pytest.raises(OptionError, match="`json` and `regex` exclude each other"):
                call(messages, json=True, regex="a")
            with pytest.raises(OptionError, match="`json` must be true or false"):
                call(messages, json={"type": "object"})
        with pytest.raises(OptionError, match="`constraint` excludes"):
            model.chat(messages, constraint=Grammar.regex("a"), regex="a")
