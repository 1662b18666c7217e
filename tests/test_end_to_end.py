"""The main job on the real default model: fetched, loaded, asked."""

import ast
import json

import numpy as np
import pytest

import lacewing

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def model(smollm2_path):
    with lacewing.load(smollm2_path, backend="cpu", residency="lazy", context=512) as model:
        yield model


def test_answers(model):
    assert model.generate("The capital of France is", max_tokens=4, temperature=0).startswith(" Paris")
    stream = model.chat([{"role": "user", "content": "Name three fruits."}], max_tokens=60, temperature=0)
    answer = "".join(stream)
    assert any(fruit in answer.lower() for fruit in ("apple", "banana", "orange", "grape")) and stream.finish_reason == "stop"


def test_residency_and_prefix_reuse_change_no_bit(model):
    ids = model.tokenizer.encode_prompt("Rain fell on the old town all night long, and in the morning")
    before = model.logits(ids)
    text = model.generate("Rain fell", max_tokens=16, temperature=0)
    assert model.generate("Rain fell", max_tokens=16, temperature=0) == text and model.stats["reused_tokens"] > 0
    model.set_residency("eager")
    assert np.array_equal(model.logits(ids), before)
    model.engine.forget()
    assert model.generate("Rain fell", max_tokens=16, temperature=0) == text
    one_by_one = np.stack([model.engine.extend([token]).copy() for token in (model.engine.forget() or ids)])
    assert np.array_equal(one_by_one, before)
    model.set_residency("lazy")
    assert np.array_equal(model.logits(ids), before)


def test_a_conversation_costs_only_what_is_new(model):
    messages = list(QUESTION)
    messages.append({"role": "assistant", "content": "".join(model.chat(messages, max_tokens=24, temperature=0))})
    messages.append({"role": "user", "content": "And of Italy?"})
    "".join(model.chat(messages, max_tokens=8, temperature=0))
    stats = model.stats
    assert stats["reused_tokens"] > stats["prompt_tokens"] * 0.6, json.dumps(stats)


def test_log_probabilities(model):
    stream = model.stream("The capital of France is", max_tokens=3, temperature=0, logprobs=3)
    "".join(stream)
    for token in stream.tokens:
        assert token.alternatives[0] == (token.id, token.logprob) and sum(np.exp(p) for _, p in token.alternatives) <= 1.0001


@pytest.mark.slow
def test_a_larger_instruct_model_writes_code_that_works(qwen_path):
    """The suggested model, joined from pieces or fetched from the hub: its SHA-256 is checked by `pull`."""
    with lacewing.load(qwen_path, backend="cpu", context=1024) as model:
        assert (model.spec.architecture, qwen_path.stat().st_size) == ("qwen2", 491_400_064)
        ask = "Write a Python function reverse_list(items) that returns a reversed copy of a list. Answer with code only."
        answer = "".join(model.chat([{"role": "user", "content": ask}], max_tokens=200, temperature=0))
        code = answer.partition("```python\n")[2].partition("```")[0]
        tree = ast.parse(code)
        function = next(node for node in tree.body if isinstance(node, ast.FunctionDef))
        assert function.name == "reverse_list" and ("[::-1]" in code or "reversed(" in code or ".reverse()" in code)
        assert "".join(model.chat([{"role": "user", "content": "What is 2 + 3? Answer with the number."}], max_tokens=16,
                                  temperature=0)).strip().startswith("5")  # fmt: skip
