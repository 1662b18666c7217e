"""Responses in the background: followed, left, followed again, cancelled, and what a server's end makes of them."""

from __future__ import annotations

import asyncio
import threading
import time

import httpx
import openai
import pytest

from lacewing.server.app import create_app
from lacewing.server.responses.database import Database
from lacewing.server.responses.state import state_of
from lacewing.server.responses.store import Store
from tests.server.responses.conftest import client_of, parsed
from tests.server.scripted import Scripted
from tests.server.serving import Limits, running
from tests.server.test_disconnects import LONG, Watch, gone, leave, send, until

ENDLESS = "word " * 1500
SENT = {"model": "tiny", "input": "Go.", "background": True}


def ended(client, id: str, seconds: float = 30.0) -> openai.types.responses.Response:
    """The response once it is over."""
    until = time.monotonic() + seconds
    while (found := client.responses.retrieve(id)).status in ("queued", "in_progress"):
        assert time.monotonic() < until
        time.sleep(0.02)
    return found


def test_it_goes_on_alone(client, says):
    says("<think>Hm.</think>Hello.")
    made = client.responses.create(**SENT)
    assert made.status == "queued" and made.output == [] and made.background
    found = ended(client, made.id)
    assert found.status == "completed" and found.output_text == "Hello." and found.usage.output_tokens > 0
    assert client.responses.cancel(made.id).status == "completed"  # too late
    says("Yes.")
    assert client.responses.create(model="tiny", input="?", previous_response_id=made.id).output_text == "Yes."


def test_it_can_be_followed_from_anywhere(client, url, says):
    says("Hello, how are you?")
    with httpx.stream("POST", f"{url}/v1/responses", json={**SENT, "stream": True}, timeout=30) as response:
        whole = parsed(response.read().decode())
    kinds = [event["type"] for event in whole]
    assert kinds[:3] == ["response.created", "response.queued", "response.in_progress"] and kinds[-1] == "response.completed"
    id = whole[0]["response"]["id"]
    for after in (-1, 0, 3, len(whole) - 2, len(whole) + 5):
        query = "" if after < 0 else f"&starting_after={after}"
        text = httpx.get(f"{url}/v1/responses/{id}?stream=true{query}", timeout=30).text
        assert parsed(text, after) == whole[after + 1 :]
    assert [event.type for event in client.responses.retrieve(id, stream=True, starting_after=2)] == kinds[3:]


def test_whoever_follows_may_leave(client, url, says):
    says(ENDLESS)
    with httpx.stream("POST", f"{url}/v1/responses", json={**SENT, "stream": True}, timeout=30) as response:
        lines = response.iter_lines()
        first = next(line for line in lines if line.startswith("data: "))
        id = first.split('"id":"')[1].split('"')[0]
        next(line for line in lines if "output_text.delta" in line)
    assert client.responses.retrieve(id).status == "in_progress"
    with pytest.raises(openai.BadRequestError, match="not over yet"):
        client.responses.create(model="tiny", input="?", previous_response_id=id)
    cancelled = client.responses.cancel(id)
    assert cancelled.status == "cancelled" and cancelled.output_text.startswith("word")
    assert cancelled.output[0].status == "incomplete"
    assert client.responses.retrieve(id) == cancelled
    follows = parsed(httpx.get(f"{url}/v1/responses/{id}?stream=true", timeout=30).text)
    assert [event["type"] for event in follows[-2:]] == ["response.output_item.done", "response.incomplete"]
    assert follows[-1]["response"]["status"] == "cancelled"


def test_it_is_kept_whoever_cancels_it_once_more_meanwhile(model, tmp_path):
    registry, path, free = Scripted(model), tmp_path / "responses.sqlite3", threading.Event()
    registry.assistant.script = ENDLESS
    store = Store(path, 30, 1 << 30)
    with running(registry, store=store) as url, client_of(url) as client:
        id = client.responses.create(**SENT).id
        until(lambda: client.responses.retrieve(id).status == "in_progress")
        store._thread.submit(free.wait, 30)  # the disk is slow
        asks = [threading.Thread(target=client.responses.cancel, args=(id,)) for _ in range(2)]
        for ask in asks:
            ask.start()
            time.sleep(0.3)
        free.set()
        for ask in asks:
            ask.join()
    kept = Database(path, 30, 1 << 30)
    assert kept.response(id).body["status"] == "cancelled"
    kept.close()


def test_only_what_runs_in_the_background_can_be_cancelled(client, says):
    says("Hello.")
    made = client.responses.create(model="tiny", input="Go.")
    with pytest.raises(openai.BadRequestError, match="does not run in the background"):
        client.responses.cancel(made.id)
    with pytest.raises(openai.BadRequestError, match="events"):
        client.responses.retrieve(made.id, stream=True)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_none", stream=True)


def test_one_that_is_deleted_ends(client, says, model):
    says(ENDLESS)
    made = client.responses.create(**SENT)
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    until(lambda: not model.engine.scheduler.running)


def test_one_that_fails_says_so(client, says):
    says("Hello.")
    made = client.responses.create(model="tiny", input="word " * 9000, background=True)
    found = ended(client, made.id)
    assert found.status == "failed" and found.error.code == "context_length_exceeded" and "context" in found.error.message


def test_too_many_are_refused(model, tmp_path):
    registry = Scripted(model)
    registry.assistant.script = ENDLESS
    with running(registry, store=Store(tmp_path / "responses.sqlite3", 30, 1 << 30), queue=1) as url, client_of(url) as client:
        made = []
        with pytest.raises(openai.RateLimitError):
            for _ in range(20):
                made.append(client.responses.create(**SENT).id)
                time.sleep(0.05)
        assert len(made) >= model.engine.step.limits.rows
        for id in made:
            assert client.responses.cancel(id).status == "cancelled"


def test_a_server_that_ends_fails_what_runs(model, tmp_path):
    """As `lacewing serve` ends: what runs has failed, and what has come of it is kept."""
    path = tmp_path / "responses.sqlite3"

    async def run() -> str:
        registry = Scripted(model)
        registry.assistant.script = ENDLESS
        app = create_app(registry, Limits(), store=Store(path, 30, 1 << 30))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            id = (await client.post("/v1/responses", json=SENT)).json()["id"]
            run = state_of(app).runs.find(id)
            while not any(b"delta" in event for event in run.writer.log):
                await asyncio.sleep(0.01)
        await state_of(app).close()
        assert b"response.failed" in run.writer.log[-1]
        await asyncio.to_thread(registry.close)
        return id

    id = asyncio.run(run())
    database = Database(path, 30, 1 << 30)
    found = database.response(id)
    database.close()
    assert found.body["status"] == "failed" and found.owner is None and "ended" in found.body["error"]["message"]


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("content", ["Count.", LONG])
def test_clients_that_leave_end_what_is_not_in_the_background(model, tmp_path, stream, how, content):
    registry, watch = Scripted(model), Watch()
    registry.assistant.script = ENDLESS
    model.engine.forget()
    with running(registry, [watch], store=Store(tmp_path / "responses.sqlite3", 30, 1 << 30)) as url:
        more = {"input": content}
        connection = send(url, content, stream=stream, max_tokens=2000, path="/v1/responses", **more)
        until(lambda: watch.running and (content is LONG or watch.records[0].last_token))
        leave(connection, how)
        gone(watch, registry)
