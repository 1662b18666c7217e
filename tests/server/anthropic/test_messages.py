"""Messages with Anthropic's own client, whose types the streams have to fit, and as bytes on the wire."""

from __future__ import annotations

import json
from collections.abc import Iterator

import anthropic
import httpx
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

HELLO = [{"role": "user", "content": "Write about the sea."}]
WEATHER = {
    "name": "get_weather",
    "description": "The weather at a place",
    "input_schema": {"type": "object", "properties": {"place": {"type": "string", "maxLength": 12}}, "required": ["place"]},
}
GREEDY = {"temperature": 0}  # no argument of the client any more
EVENT = TypeAdapter(RawMessageStreamEvent)
CALLS = '<tool_call>\n{"name": "get_weather", "arguments": {"place": "Bern"}}\n</tool_call>'


@pytest.fixture
def client(url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=30) as client:
        yield client


@pytest.fixture
def asks(scripted) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=scripted[0], api_key="none", max_retries=0, timeout=30) as client:
        yield client


def events(url: str, **body) -> list[dict]:
    """What a stream sends; each event fits the client's type of it, and is named as it says."""
    sent = {"model": "tiny", "max_tokens": 60, "messages": HELLO, "stream": True, "temperature": 0, **body}
    with httpx.stream("POST", f"{url}/v1/messages", json=sent, timeout=60) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        data = response.read().decode()
    found = []
    for block in data.split("\n\n")[:-1]:
        name, line = block.split("\n")
        told = json.loads(line.removeprefix("data: "))
        assert name == f"event: {told['type']}"
        EVENT.validate_python(told, strict=True)
        found.append(told)
    return found


def test_an_answer_is_the_one_of_the_api(client, model):
    expected = model.chat([{"role": "system", "content": "Be brief."}, *HELLO], temperature=0, max_tokens=24)
    text = "".join(expected)
    got = client.messages.create(model="tiny", max_tokens=24, system="Be brief.", messages=HELLO, extra_body=GREEDY)
    assert [block.text for block in got.content] == [text] and got.content[0].type == "text"
    assert (got.role, got.type, got.model, got.stop_reason, got.stop_sequence) == (
        "assistant",
        "message",
        "tiny",
        "max_tokens",
        None,
    )
    assert got.id.startswith("msg_") and got.usage.output_tokens == 24
    assert got.usage.input_tokens == 1  # the API has read the prompt before
    assert got.usage.input_tokens + got.usage.cache_read_input_tokens == expected.stats.prompt_tokens


def test_a_stream_makes_the_same_text(client, url):
    whole = client.messages.create(model="tiny", max_tokens=24, messages=HELLO, extra_body=GREEDY)
    found = events(url, max_tokens=24)
    assert [event["type"] for event in found[:2]] == ["message_start", "content_block_start"]
    assert [event["type"] for event in found[-3:]] == ["content_block_stop", "message_delta", "message_stop"]
    assert "".join(event["delta"]["text"] for event in found[2:-3]) == whole.content[0].text
    start = Message.model_validate(found[0]["message"], strict=True)
    assert start.content == [] and start.stop_reason is None and start.usage.output_tokens == 0
    assert start.usage.input_tokens + start.usage.cache_read_input_tokens > 0
    assert found[-2]["delta"] == {"stop_reason": "max_tokens", "stop_sequence": None}
    assert found[-2]["usage"]["output_tokens"] == 24


def test_the_clients_stream_helper_reads_it(client):
    with client.messages.stream(model="tiny", max_tokens=16, messages=HELLO, extra_body=GREEDY) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == final.content[0].text != "" and final.usage.output_tokens == 16


def test_stop_sequences(client):
    whole = client.messages.create(model="tiny", max_tokens=24, messages=HELLO, extra_body=GREEDY).content[0].text
    word = whole.split()[2]
    got = client.messages.create(model="tiny", max_tokens=24, messages=HELLO, stop_sequences=["never", word], extra_body=GREEDY)
    assert got.content[0].text == whole[: whole.index(word)]
    assert (got.stop_reason, got.stop_sequence) == ("stop_sequence", word)


def test_prefill_is_continued_and_not_repeated(client):
    begun = [*HELLO, {"role": "assistant", "content": "Bonjour"}]
    got = client.messages.create(model="tiny", max_tokens=4, messages=begun, extra_body=GREEDY)
    assert not got.content[0].text.startswith("Bonjour")


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}])
def test_a_tool_that_must_be_called(client, choice):
    choice["disable_parallel_tool_use"] = True
    got = client.messages.create(model="tiny", max_tokens=200, messages=HELLO, tools=[WEATHER], tool_choice=choice)
    assert got.stop_reason == "tool_use"
    (call,) = got.content
    assert call.name == "get_weather" and list(call.input) == ["place"] and call.id.startswith("toolu_")


def test_thoughts_text_and_calls_are_blocks(says, asks):
    url = says(f"<think>Let me see.</think>I look.{CALLS}\n{CALLS}")
    found = events(url, max_tokens=200, tools=[WEATHER])
    starts = [event["content_block"]["type"] for event in found if event["type"] == "content_block_start"]
    assert starts == ["thinking", "text", "tool_use", "tool_use"]
    deltas = [(event["index"], event["delta"]) for event in found if event["type"] == "content_block_delta"]
    assert "".join(each["thinking"] for at, each in deltas if each["type"] == "thinking_delta") == "Let me see."
    assert [at for at, each in deltas if each["type"] == "signature_delta"] == [0]
    assert json.loads("".join(each["partial_json"] for at, each in deltas if at == 2)) == {"place": "Bern"}
    assert found[-2]["delta"]["stop_reason"] == "tool_use" and found[-2]["usage"]["output_tokens_details"]["thinking_tokens"] > 0
    got = asks.messages.create(model="tiny", max_tokens=200, messages=HELLO, tools=[WEATHER])
    thoughts, text, *calls = got.content
    assert (thoughts.thinking, text.text.strip()) == ("Let me see.", "I look.") and thoughts.signature
    assert [call.input for call in calls] == [{"place": "Bern"}] * 2 and calls[0].id != calls[1].id
    with asks.messages.stream(model="tiny", max_tokens=200, messages=HELLO, tools=[WEATHER]) as stream:
        assert [block.type for block in stream.get_final_message().content] == starts


def test_what_the_answer_was_can_be_sent_back(says, asks, scripted):
    says(f"<think>Let me see.</think>{CALLS}")
    first = asks.messages.create(model="tiny", max_tokens=200, messages=HELLO, tools=[WEATHER])
    says("It is sunny.")
    call = first.content[-1]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "sunny"}]}
    after = [*HELLO, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    second = asks.messages.create(model="tiny", max_tokens=50, messages=after, tools=[WEATHER])
    assert (second.content[0].text, second.stop_reason) == ("It is sunny.", "end_turn")
    messages, _ = scripted[1].seen
    assert [message["role"] for message in messages] == ["user", "assistant", "tool"]
    assert messages[1]["reasoning_content"] == "Let me see." and messages[1]["tool_calls"][0]["id"] == call.id
    assert messages[2] == {"role": "tool", "tool_call_id": call.id, "content": "sunny"}


def test_thoughts_that_are_omitted_come_back_in_their_signature(says, asks, scripted):
    says("<think>A secret.</think>Yes.")
    thinking = {"type": "adaptive", "display": "omitted"}
    first = asks.messages.create(model="tiny", max_tokens=50, messages=HELLO, thinking=thinking)
    assert first.content[0].thinking == "" and first.content[1].text == "Yes."
    streamed = events(scripted[0], thinking=thinking)
    assert not any(event.get("delta", {}).get("type") == "thinking_delta" for event in streamed)
    asks.messages.create(
        model="tiny",
        max_tokens=5,
        messages=[*HELLO, {"role": "assistant", "content": first.content}, {"role": "user", "content": "?"}],
    )
    assert scripted[1].seen[0][1]["reasoning_content"] == "A secret."


@pytest.mark.parametrize(
    ("body", "effort", "budget"),
    [
        ({}, None, None),
        ({"thinking": {"type": "disabled"}}, "none", None),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "high", 1024),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "medium"}}, "medium", None),
        ({"output_config": {"effort": "max"}}, "high", None),
    ],
)
def test_how_much_it_thinks(says, scripted, body, effort, budget):
    sent = {"model": "tiny", "max_tokens": 2, "messages": HELLO, **body}
    assert httpx.post(f"{says('Yes')}/v1/messages", json=sent, timeout=30).status_code == 200
    options = scripted[1].seen[1]
    assert (options.reasoning_effort, options.reasoning_budget) == (effort, budget)


def test_a_schema_is_followed(client):
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9, "minimum": 0}}, "required": ["n"]}
    form = {"type": "json_schema", "schema": schema | {"additionalProperties": False}}
    got = client.messages.create(model="tiny", max_tokens=60, messages=HELLO, output_config={"format": form}, extra_body=GREEDY)
    assert 0 <= json.loads(got.content[0].text)["n"] <= 9


def test_models_are_listed(client):
    (found,) = client.models.list()
    assert (found.id, found.type, found.display_name) == ("tiny", "model", "tiny") and found.created_at.year >= 1970
    assert client.models.retrieve("tiny").id == "tiny"


def test_tokens_are_counted(client):
    body = {"model": "tiny", "messages": HELLO, "system": [{"type": "text", "text": "Be brief."}], "tools": [WEATHER]}
    counted = client.messages.count_tokens(**body).input_tokens
    usage = client.messages.create(max_tokens=1, **body).usage
    assert counted == usage.input_tokens + usage.cache_read_input_tokens
    assert counted > client.messages.count_tokens(model="tiny", messages=HELLO).input_tokens


@pytest.mark.parametrize(
    ("body", "status", "kind", "words"),
    [
        ({"max_tokens": None}, 400, "invalid_request_error", "max_tokens"),
        ({"model": None}, 400, "invalid_request_error", "model"),
        ({"messages": []}, 400, "invalid_request_error", "messages"),
        ({"messages": [{"role": "user"}]}, 400, "invalid_request_error", "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "invalid_request_error", "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, 400, "invalid_request_error", "'image'"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, 400, "invalid_request_error", "content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, 400, "invalid_request_error", "tool_use_id"),
        ({"messages": [{"role": "assistant", "content": [{"type": "tool_use"}]}]}, 400, "invalid_request_error", "].id"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, 400, "invalid_request_error", "web_search_20250305"),
        ({"tools": [{"name": "f"}]}, 400, "invalid_request_error", "input_schema"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool"}}, 400, "invalid_request_error", "tool_choice.name"),
        ({"tool_choice": {"type": "any"}}, 400, "invalid_request_error", "no `tools`"),
        ({"mcp_servers": [{"url": "x"}]}, 400, "invalid_request_error", "mcp_servers"),
        ({"temperature": 3}, 400, "invalid_request_error", "temperature"),
        ({"model": "other"}, 404, "not_found_error", "no model"),
        ({"messages": [{"role": "user", "content": "word " * 9000}]}, 400, "invalid_request_error", "prompt is too long: 90"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_is_told(url, body, status, kind, words, stream):
    sent = {"model": "tiny", "max_tokens": 4, "messages": HELLO, "stream": stream, **body}
    response = httpx.post(f"{url}/v1/messages", json=sent, timeout=30)
    told = response.json()
    assert (response.status_code, told["type"], told["error"]["type"]) == (status, "error", kind), told
    assert words in told["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b'{"messages": "\xff"}', b'{"max_tokens": NaN}'])
def test_bodies_that_are_no_requests(url, path, body):
    response = httpx.post(f"{url}{path}", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400 and response.json()["error"]["type"] == "invalid_request_error"


def test_paths_and_methods_that_there_are_not(url):
    for response in (httpx.get(f"{url}/v1/messages"), httpx.post(f"{url}/v1/messages/batches", json={})):
        assert response.status_code in (404, 405) and response.json()["type"] == "error"


def test_the_client_raises_its_own_errors(client):
    with pytest.raises(anthropic.NotFoundError, match="no model"):
        client.messages.create(model="other", max_tokens=1, messages=HELLO)
    with pytest.raises(anthropic.BadRequestError, match="temperature"):
        client.messages.create(model="tiny", max_tokens=1, messages=HELLO, extra_body={"temperature": 5})
