"""A server that keeps responses, whose model says what a test wants, and OpenAI's client for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import httpx
import openai
import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from lacewing.server.responses.store import Store
from tests.server.scripted import Scripted, ScriptedAssistant
from tests.server.serving import running

EVENT = TypeAdapter(ResponseStreamEvent)


@pytest.fixture(scope="module")
def place(model, tmp_path_factory) -> Iterator[tuple[str, ScriptedAssistant]]:
    registry = Scripted(model)
    store = Store(tmp_path_factory.mktemp("store") / "responses.sqlite3", 30, 1 << 30)
    with running(registry, store=store) as url:
        yield url, registry.assistant


@pytest.fixture
def url(place) -> str:
    return place[0]


@pytest.fixture
def says(place) -> Iterator[Callable[[str | None], None]]:
    """Has the next answers say a text."""
    _, assistant = place

    def say(text: str | None) -> None:
        assistant.script = text

    yield say
    assistant.script = None


@pytest.fixture
def seen(place) -> Callable[[], tuple]:
    """The messages and options that the assistant was asked with."""
    return lambda: place[1].seen


def client_of(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=30)


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with client_of(url) as client:
        yield client


def parsed(data: str, after: int = -1) -> list[dict]:
    """The events of a stream: each fits the client's type of it, is named as it says, and has the next number."""
    found = []
    for block in data.split("\n\n")[:-1]:
        if block.startswith(":"):
            continue
        name, line = block.split("\n")
        told = json.loads(line.removeprefix("data: "))
        assert name == f"event: {told['type']}"
        if (told.get("response") or {}).get("error") is None:  # of codes of errors the client's list is not whole
            EVENT.validate_python(told)
        found.append(told)
    assert [event["sequence_number"] for event in found] == list(range(after + 1, after + 1 + len(found)))
    return found


def events(url: str, **body) -> list[dict]:
    sent = {"model": "tiny", "stream": True, "temperature": 0, "max_output_tokens": 60, **body}
    with httpx.stream("POST", f"{url}/v1/responses", json=sent, timeout=60) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        return parsed(response.read().decode())
