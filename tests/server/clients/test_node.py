"""The official clients for Node, and the AI SDK."""

from __future__ import annotations

import json

import numpy as np
import pytest

PROMPT = [{"role": "user", "content": "Write about the sea."}]
TEXTS = ["The sky is blue.", "Ships sail."]
CAT = {"name", "age"}


@pytest.fixture(scope="module")
def text(model) -> str:
    """What the model says."""
    return "".join(model.chat(PROMPT, temperature=0, max_tokens=24))


@pytest.fixture(scope="module")
def continued(model) -> str:
    return model.generate("Once upon a time", temperature=0, max_tokens=12)


def test_openai(run_node, name, model, text, continued):
    found = run_node("openai.mjs")
    assert found["models"] == [name] and found["shown"] == name
    assert found["whole"] == found["streamed"] == found["helper"] == text and found["text"] == continued
    assert found["usage"]["completion_tokens"] == found["streamedUsage"]["completion_tokens"] == 24
    assert set(found["parsed"]) == CAT and 0 <= found["parsed"]["age"] <= 20
    for call in (found["call"], found["streamedCall"]):
        assert call["id"] and call["type"] == "function" and call["function"]["name"] == "weather"
        assert json.loads(call["function"]["arguments"])["city"] in ("Rome", "Oslo")
    assert found["callEnd"] == "tool_calls" and found["asked"][0] in ("Rome", "Oslo")
    assert np.array_equal(np.float32(found["vectors"]), model.embed(TEXTS))
    assert found["left"] == 3
    kinds = [(error["kind"], error["status"], error["code"], error["param"]) for error in found["errors"]]
    assert kinds == [
        ("BadRequestError", 400, "invalid_value", "temperature"),
        ("NotFoundError", 404, "model_not_found", None),
        ("BadRequestError", 400, "context_length_exceeded", "messages"),
    ]


def test_ai_sdk(run_node, model, text):
    found = run_node("ai_sdk.mjs")
    assert found["whole"] == found["streamed"] == text and found["end"] == "length"
    written = "user:\nThe sea\n\nassistant:\n"  # as it makes a text of a prompt
    assert found["prompted"] == model.generate(written, temperature=0, max_tokens=12)
    for usage in (found["usage"], found["streamedUsage"]):
        assert usage["outputTokens"] == 24 and usage["inputTokens"] > usage["inputTokenDetails"]["cacheReadTokens"] >= 0
    assert found["call"] == found["streamedCall"] and found["call"][0]["name"] == "weather"
    assert found["callEnd"] == "tool-calls" and "text-delta" not in found["kinds"]
    assert found["steps"] == 2 and found["asked"] == [found["call"][0]["input"]["city"]] * len(found["asked"]) != []
    for cat in (found["object"], found["streamedObject"], found["output"]):
        assert set(cat) == CAT and 0 <= cat["age"] <= 20
    assert np.array_equal(np.float32(found["vectors"]), model.embed(TEXTS))
    assert (found["error"]["name"], found["error"]["status"], found["error"]["retry"]) == ("AI_APICallError", 404, False)


def test_responses(run_node, name, text):
    found = run_node("responses.mjs")
    assert found["whole"] == found["streamed"] == found["helper"] == text
    assert found["kinds"][:2] == ["response.created", "response.in_progress"] and found["kinds"][-1] == "response.incomplete"
    assert (
        found["shown"] == found["first"] and found["before"] == found["first"] and found["items"] == ["user", "assistant", "user"]
    )
    assert set(found["parsed"]) == CAT and found["background"] in ("completed", "incomplete") and found["conversation"] == 3
    assert found["call"]["name"] == "weather" and json.loads(found["call"]["arguments"])["city"] in ("Rome", "Oslo")
    kinds = [(error["kind"], error["status"], error["code"]) for error in found["errors"]]
    assert kinds == [
        ("BadRequestError", 400, "invalid_value"),
        ("NotFoundError", 404, "model_not_found"),
        ("BadRequestError", 400, "previous_response_not_found"),
        ("NotFoundError", 404, "not_found"),
    ]


def test_anthropic(run_node, text):
    found = run_node("anthropic.mjs")
    assert found["whole"] == found["streamed"] == text and found["stop"] == "max_tokens" and found["usage"]["output_tokens"] == 24
    assert found["counted"] == found["usage"]["input_tokens"] + found["usage"]["cache_read_input_tokens"]
    for call in (found["call"], found["streamedCall"]):
        assert call["type"] == "tool_use" and call["name"] == "weather" and call["input"]["city"] in ("Rome", "Oslo")
    assert found["callEnd"] == "tool_use" and found["answered"] and found["left"] == 3
    assert found["aborted"] == "APIUserAbortError"
    kinds = [(error["kind"], error["status"], error["type"]) for error in found["errors"]]
    assert kinds == [
        ("BadRequestError", 400, "invalid_request_error"),
        ("NotFoundError", 404, "not_found_error"),
        ("BadRequestError", 400, "invalid_request_error"),
    ]
    assert "prompt is too long" in found["errors"][2]["message"] and all(error["request"] for error in found["errors"])
