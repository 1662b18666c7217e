"""Completions of raw texts with the official client."""

from __future__ import annotations

import numpy as np
import pytest


def ask(client, **options):
    return client.completions.create(model="tiny", temperature=0, **options)


def test_a_text_goes_on_as_the_api_has_it(client, model):
    got = ask(client, prompt="Once upon a time", max_tokens=12)
    assert got.choices[0].text == model.generate("Once upon a time", temperature=0, max_tokens=12)
    assert got.object == "text_completion" and got.usage.completion_tokens == 12
    assert len(model.tokenizer.encode(ask(client, prompt="Once").choices[0].text)) == 16  # as OpenAI has it


def test_prompts_of_every_form(client, model):
    ids = [model.tokenizer.encode_prompt(text) for text in ("Once upon", "The sky")]
    texts = [choice.text for choice in ask(client, prompt=["Once upon", "The sky"], n=2, max_tokens=5).choices]
    assert texts[0] == texts[1] != texts[2] == texts[3]
    got = ask(client, prompt=ids, max_tokens=5)
    assert [choice.text for choice in got.choices] == texts[::2] and [choice.index for choice in got.choices] == [0, 1]
    assert ask(client, prompt=ids[0], max_tokens=5).choices[0].text == texts[0]
    assert got.usage.prompt_tokens == sum(map(len, ids))


def test_a_stream(client):
    whole = ask(client, prompt="The sky", max_tokens=8, echo=True).choices[0].text
    assert whole.startswith("The sky")
    chunks = list(client.completions.create(model="tiny", prompt="The sky", temperature=0, max_tokens=8, stream=True, echo=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole
    assert chunks[-1].choices[0].finish_reason == "length"


def test_log_probabilities(client):
    found = ask(client, prompt="The sky", max_tokens=4, logprobs=2).choices[0]
    logprobs = found.logprobs
    assert "".join(logprobs.tokens) == found.text and logprobs.text_offset[0] == 0
    assert [len(each) for each in logprobs.top_logprobs] == [2] * 4
    assert all(max(each.values()) == one for each, one in zip(logprobs.top_logprobs, logprobs.token_logprobs, strict=True))


@pytest.mark.parametrize("most", [0, 3])
def test_log_probabilities_of_the_prompt(client, model, most):
    """As lm-eval asks for them: the text again, and nothing generated."""
    ids = model.tokenizer.encode_prompt("The sky is blue today")
    rows = model.logits(ids).astype(np.float64)
    top = rows.max(axis=1, keepdims=True)
    logs = rows - top - np.log(np.exp(rows - top).sum(axis=1, keepdims=True))
    expected = [row[token] for row, token in zip(logs, ids[1:], strict=False)]
    found = ask(client, prompt=ids, max_tokens=most, echo=True, logprobs=1).choices[0]
    logprobs = found.logprobs
    assert found.text.startswith("The sky is blue today") and "".join(logprobs.tokens) == found.text
    assert logprobs.token_logprobs[0] is None and logprobs.top_logprobs[0] is None
    assert np.allclose(logprobs.token_logprobs[1 : len(ids)], expected, atol=1e-4)
    assert len(logprobs.tokens) == len(ids) + most
    assert [found.text[at:] for at in logprobs.text_offset] == ["".join(logprobs.tokens[at:]) for at in range(len(ids) + most)]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"logprobs": 21}, "logprobs"),
    ],
)
def test_what_is_refused(client, options, problem):
    import openai

    with pytest.raises(openai.BadRequestError, match=problem):
        ask(client, **{"prompt": "x", **options})
