"""Chat completions with the official client, and as bytes on the wire."""

from __future__ import annotations

import json

import httpx
import openai
import pytest

HELLO = [{"role": "user", "content": "Write about the sea."}]
IMAGE = {"role": "user", "content": [{"type": "image_url"}]}
NO_TEXT = b'{"model": "tiny", "messages": [{"role": "user", "content": "\xff"}]}'


def events(url: str, path: str, **body) -> list:
    """What a stream sends, "[DONE]" included."""
    with httpx.stream("POST", f"{url}{path}", json={"model": "tiny", "stream": True, **body}, timeout=60) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        data = response.read().decode()
    lines = [line.removeprefix("data: ") for line in data.split("\n\n") if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def test_an_answer_is_the_one_of_the_api(client, model):
    expected = model.chat(HELLO, temperature=0, max_tokens=24)
    text = "".join(expected)
    got = client.chat.completions.create(model="tiny", messages=HELLO, temperature=0, max_tokens=24)
    choice = got.choices[0]
    assert choice.message.content == text and choice.message.role == "assistant"
    assert choice.finish_reason == "length" and got.object == "chat.completion" and got.model == "tiny"
    assert got.usage.prompt_tokens == expected.stats.prompt_tokens and got.usage.completion_tokens == 24
    assert got.usage.prompt_tokens_details.cached_tokens == got.usage.prompt_tokens - 1  # the API has run it before
    assert got.timings["prompt_n"] == 1 and got.timings["predicted_n"] == 24


def test_a_stream_makes_the_same_text(client, url):
    whole = client.chat.completions.create(model="tiny", messages=HELLO, temperature=0, max_tokens=24)
    options = {"temperature": 0, "max_tokens": 24, "stream_options": {"include_usage": True}}
    found = events(url, "/v1/chat/completions", messages=HELLO, **options)
    assert found[-1] == "[DONE]"
    *chunks, usage = found[:-1]
    assert {chunk["id"] for chunk in found[:-1]} == {usage["id"]} and usage["id"].startswith("chatcmpl-")
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == whole.choices[0].message.content
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert all(chunk["usage"] is None for chunk in chunks) and usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 24
    assert usage["usage"]["total_tokens"] == usage["usage"]["prompt_tokens"] + 24
    assert chunks[-1]["timings"]["predicted_n"] == 24


def test_the_clients_stream_helper_reads_it(client):
    with client.chat.completions.stream(model="tiny", messages=HELLO, temperature=0, stop=["."]) as stream:
        pieces = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert "".join(pieces) == final.choices[0].message.content != ""


def test_several_answers_with_seeds_in_a_row(client):
    def ask(seed: int, n: int) -> list[str]:
        got = client.chat.completions.create(model="tiny", messages=HELLO, temperature=1, seed=seed, n=n, max_tokens=12)
        assert [choice.index for choice in got.choices] == list(range(n)) and got.usage.completion_tokens <= 12 * n
        return [choice.message.content for choice in got.choices]

    three = ask(7, 3)
    assert len(set(three)) == 3 and three == [*ask(7, 1), *ask(8, 1), *ask(9, 1)]


def test_several_answers_in_one_stream(url):
    body = {"model": "tiny", "messages": HELLO, "temperature": 1, "seed": 7, "n": 3, "max_tokens": 12}
    found = events(url, "/v1/chat/completions", **body)
    texts = ["", "", ""]
    for chunk in found[:-1]:
        choice = chunk["choices"][0]
        texts[choice["index"]] += choice["delta"].get("content", "")
    response = httpx.post(f"{url}/v1/chat/completions", json=body)
    assert texts == [choice["message"]["content"] for choice in response.json()["choices"]]


def test_log_probabilities(client):
    got = client.chat.completions.create(model="tiny", messages=HELLO, temperature=0, max_tokens=6, logprobs=True, top_logprobs=3)
    choice = got.choices[0]
    content = choice.logprobs.content
    assert len(content) == 6 and b"".join(bytes(each.bytes) for each in content).decode() == choice.message.content
    for each in content:
        assert len(each.top_logprobs) == 3 and each.logprob == max(top.logprob for top in each.top_logprobs) <= 0


def test_stop_strings_and_biases(client, model):
    text = "".join(model.chat(HELLO, temperature=0, max_tokens=24))
    word = text.split()[2]
    got = client.chat.completions.create(model="tiny", messages=HELLO, temperature=0, max_tokens=24, stop=[word])
    assert got.choices[0].message.content == text[: text.index(word)] and got.choices[0].finish_reason == "stop"
    first = model.tokenizer.encode(text)[0]
    other = client.chat.completions.create(model="tiny", messages=HELLO, temperature=0, max_tokens=4, logit_bias={str(first): -100})
    assert not text.startswith(other.choices[0].message.content)


def test_the_last_message_of_the_assistant_is_continued(client):
    begun = [*HELLO, {"role": "assistant", "content": "Bonjour"}]
    got = client.chat.completions.create(model="tiny", messages=begun, temperature=0, max_tokens=4)
    assert got.usage.prompt_tokens > 0 and got.choices[0].message.content.startswith("Bonjour")


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        ({"temperature": 3}, 400, "temperature", "invalid_value"),
        ({"temperature": "hot"}, 400, "temperature", "invalid_value"),
        ({"n": 9}, 400, "n", "invalid_value"),
        ({"messages": []}, 400, "messages", "invalid_value"),
        ({"messages": [{"content": "x"}]}, 400, "messages[0].role", "missing_required_parameter"),
        ({"messages": [{"role": "user"}]}, 400, "messages[0].content", "invalid_value"),
        (
            {"messages": [IMAGE]},
            400,
            "messages[0].content[0].type",
            "unsupported_content",
        ),
        ({"top_logprobs": 2}, 400, "top_logprobs", "invalid_value"),
        ({"logit_bias": {"a": 1}}, 400, "logit_bias", "invalid_value"),
        ({"logit_bias": {"99999999": 1}}, 400, None, None),
        ({"mirostat": 2}, 400, "mirostat", "unsupported_parameter"),
        ({"model": "other"}, 404, None, "model_not_found"),
        ({"model": ""}, 400, "model", "invalid_value"),
        ({"model": None}, 400, "model", "invalid_value"),
        ({"messages": [{"role": "user", "content": "word " * 9000}]}, 400, "messages", "context_length_exceeded"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_is_told(url, body, status, param, code, stream):
    response = httpx.post(
        f"{url}/v1/chat/completions", json={"model": "tiny", "messages": HELLO, "stream": stream, **body}, timeout=30
    )
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (status, param, code), error
    assert error["message"] and response.headers["content-type"] == "application/json"


@pytest.mark.parametrize("field", ["user", "metadata", "cache_prompt", "of_tomorrow"])
def test_other_fields_are_ignored(url, field):
    response = httpx.post(
        f"{url}/v1/chat/completions", json={"model": "tiny", "messages": HELLO, "max_tokens": 1, field: "x"}, timeout=30
    )
    assert response.status_code == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[" * 100_000, b'{"n": NaN}', NO_TEXT])
def test_bodies_that_are_no_requests(url, body):
    response = httpx.post(f"{url}/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400 and response.json()["error"]["type"] == "invalid_request_error"


def test_parts_of_text_and_odd_history(client):
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is"}, {"type": "text", "text": "two and two?"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": None, "function": {"name": "f", "arguments": "{"}}],
        },
        {"role": "tool", "tool_call_id": None, "content": "4"},
        {"role": "user", "content": "So?"},
    ]
    assert client.chat.completions.create(model="tiny", messages=messages, max_tokens=2).choices[0].finish_reason


def test_the_client_raises_its_own_errors(client):
    with pytest.raises(openai.NotFoundError, match="no model"):
        client.chat.completions.create(model="other", messages=HELLO)
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(model="tiny", messages=HELLO, temperature=5)


@pytest.mark.parametrize(
    ("path", "body"),
    [("chat/completions", {"messages": HELLO}), ("completions", {"prompt": "x"}), ("embeddings", {"input": "x"})],
)
def test_a_model_has_to_be_named(url, path, body):
    response = httpx.post(f"{url}/v1/{path}", json=body, timeout=30)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, "model", "missing_required_parameter")


def test_a_prompt_that_is_too_long_is_told_in_words_that_clients_know(client):
    """litellm and others tell it from other errors by these words alone."""
    with pytest.raises(
        openai.BadRequestError, match="prompt is too long: this model's maximum context length is 8192 tokens"
    ) as raised:
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "word " * 9000}])
    assert raised.value.body["n_ctx"] == 8192 < raised.value.body["n_prompt_tokens"]
