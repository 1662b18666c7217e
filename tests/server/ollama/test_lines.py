"""Lines on the wire: their form, thoughts and calls, errors, bad bodies, and clients that leave."""

from __future__ import annotations

import json
import socket

import httpx
import pytest

from tests.server.ollama.strict import CHAT, GENERATE, check
from tests.server.serving import running
from tests.server.test_disconnects import Watch, gone, leave, until

HELLO = [{"role": "user", "content": "Write about the sea."}]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"place": "Rome", "days": 2}}\n</tool_call>'
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}, "days": {"type": "integer"}}},
    },
}
SHORT = {"temperature": 0, "num_predict": 40}


def lines(url: str, path: str, **body) -> list[dict]:
    with httpx.stream("POST", f"{url}{path}", json=body, timeout=120) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"] == "application/x-ndjson"
        data = response.read().decode()
    assert data.endswith("\n") and "\n\n" not in data
    return [json.loads(line) for line in data.splitlines()]


def test_every_line_has_its_form(url):
    for path, form, body in (
        ("/api/chat", CHAT, {"messages": HELLO, "logprobs": True, "top_logprobs": 1}),
        ("/api/generate", GENERATE, {"prompt": "The sea"}),
        ("/api/generate", GENERATE, {"prompt": "The sea", "raw": True}),
    ):
        found = lines(url, path, model="tiny", options=SHORT, **body)
        for line in found:
            check(line, form)
        assert [line["done"] for line in found] == [False] * (len(found) - 1) + [True]
        whole = httpx.post(f"{url}{path}", json={"model": "tiny", "options": SHORT, "stream": False, **body}, timeout=60).json()
        check(whole, form)


def test_thoughts_are_apart(says):
    url = says("<think>\nIt is wide.\n</think>\n\nThe sea is wide.")
    found = lines(url, "/api/chat", model="tiny", messages=HELLO, options=SHORT)
    thoughts = "".join(line["message"].get("thinking", "") for line in found)
    assert "It is wide." in thoughts and "think>" not in thoughts
    assert "".join(line["message"]["content"] for line in found).strip() == "The sea is wide."
    assert found[-1]["done_reason"] == "stop"
    whole = httpx.post(f"{url}/api/generate", json={"model": "tiny", "prompt": "Hi", "stream": False, "options": SHORT}, timeout=60)
    assert "It is wide." in whole.json()["thinking"] and whole.json()["response"].strip() == "The sea is wide."


def test_calls_come_whole(says, scripted):
    url = says(f"Let me look.\n{CALL}\n{CALL.replace('Rome', 'Oslo')}")
    body = {"model": "tiny", "messages": HELLO, "tools": [WEATHER], "options": {"temperature": 0}}
    found = lines(url, "/api/chat", **body)
    calls = [call for line in found for call in line["message"].get("tool_calls", ())]
    assert [call["function"]["arguments"] for call in calls] == [{"place": "Rome", "days": 2}, {"place": "Oslo", "days": 2}]
    assert [call["function"]["index"] for call in calls] == [0, 1] and len({call["id"] for call in calls}) == 2
    assert "".join(line["message"]["content"] for line in found).strip() == "Let me look." and found[-1]["done_reason"] == "stop"
    whole = httpx.post(f"{url}/api/chat", json={**body, "stream": False}, timeout=60).json()
    assert [call["function"] for call in whole["message"]["tool_calls"]] == [call["function"] for call in calls]
    says("It is warm.")
    history = [
        *HELLO,
        {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [{"function": calls[0]["function"]}]},
        {"role": "tool", "tool_name": "weather", "content": "21 degrees"},
    ]
    answer = httpx.post(f"{url}/api/chat", json={**body, "messages": history, "stream": False}, timeout=60).json()
    assert answer["message"]["content"] == "It is warm."
    messages, _ = scripted[1].seen
    assert messages[1]["reasoning_content"] == "hm" and messages[1]["tool_calls"][0]["function"]["arguments"]["place"] == "Rome"
    assert messages[2]["name"] == "weather"


def test_a_call_that_is_cut_is_no_call(says):
    url = says(CALL)
    body = {"model": "tiny", "messages": HELLO, "tools": [WEATHER], "options": {"temperature": 0, "num_predict": 14}}
    found = lines(url, "/api/chat", **body)
    assert not any("tool_calls" in line["message"] for line in found) and found[-1]["done_reason"] == "length"


@pytest.mark.parametrize(
    ("path", "body", "status", "part"),
    [
        ("/api/chat", b"{", 400, "not valid JSON"),
        ("/api/chat", b'{"messages": []}', 400, "`model`"),
        ("/api/chat", b'{"model": ""}', 400, "model"),
        ("/api/chat", b'{"model": "tiny", "messages": [{"role": "owl", "content": "hu"}]}', 400, "messages[0].role"),
        ("/api/chat", b'{"model": "tiny", "messages": [{"role": "user", "content": [1]}]}', 400, "messages[0].content"),
        ("/api/chat", b'{"model": "tiny", "messages": [{"role": "user", "content": "a", "images": ["x"]}]}', 400, "text only"),
        ("/api/chat", b'{"model": "tiny", "messages": [{"role": "user", "content": "a"}], "format": "xml"}', 400, "format"),
        ("/api/chat", b'{"model": "tiny", "messages": [{"role": "user", "content": "a"}], "think": "hard"}', 400, "think"),
        ("/api/chat", b'{"model": "tiny", "messages": [{"role": "user", "content": "a"}], "format": {"type": 1}}', 400, "type"),
        ("/api/generate", b'{"model": "tiny", "prompt": 1}', 400, "prompt"),
        ("/api/generate", b'{"model": "tiny", "prompt": "a", "options": {"num_ctx": "big"}}', 400, "num_ctx"),
        ("/api/generate", b'{"model": "tiny", "prompt": "a", "options": {"stop": [""]}}', 400, "stop"),
        ("/api/generate", b'{"model": "tiny", "prompt": "a", "context": [999999999]}', 400, "vocabulary"),
        ("/api/embed", b'{"model": "tiny", "input": [1]}', 400, "input"),
        ("/api/embed", b'{"model": "tiny", "input": ["a", ""]}', 400, "empty"),
        ("/api/show", b"{}", 400, "model is required"),
        ("/api/nothing", b"{}", 404, "there is no POST /api/nothing"),
    ],
)
def test_errors_are_ollamas(url, path, body, status, part):
    answer = httpx.post(f"{url}{path}", content=body, headers={"content-type": "application/json"}, timeout=60)
    assert answer.status_code == status and set(answer.json()) == {"error"} and part in answer.json()["error"], answer.text


def test_numbers_of_javascript(url):
    options = {"num_ctx": 4096.0, "num_predict": 3.0, "temperature": 0, "top_k": 40.0, "repeat_penalty": 0, "seed": -1}
    body = {"model": "tiny", "prompt": "The sea", "options": options, "stream": False}
    assert httpx.post(f"{url}/api/generate", json=body, timeout=60).json()["eval_count"] == 3


def test_that_it_runs(url):
    answer = httpx.get(f"{url}/")
    assert answer.text == "Ollama is running" and httpx.head(f"{url}/").status_code == 200
    assert httpx.get(f"{url}/api/version").json()["version"].count(".") == 2


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_clients_that_leave(model, registry, stream, how):
    watch = Watch()
    with running(registry, [watch]) as url:
        host, port = url.removeprefix("http://").split(":")
        body = json.dumps({"model": "tiny", "messages": HELLO, "stream": stream, "options": {"num_predict": 4000}}).encode()
        head = f"POST /api/chat HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection = socket.create_connection((host, int(port)))
        connection.sendall(head.encode() + body)
        until(lambda: watch.running)
        leave(connection, how)
        gone(watch, registry)


def test_refusals_before_the_application_are_ollamas_too():
    from lacewing.server.security.keys import Keys
    from tests.server.asking import ask, echo

    answer = ask(Keys(echo, ("a key of sixteen.",)), "GET", "/api/tags")
    assert answer.status_code == 401 and set(answer.json()) == {"error"} and "API key" in answer.json()["error"]
