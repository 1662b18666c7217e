"""Responses that are kept: gone on from, asked for again, deleted; conversations; a server that starts again."""

from __future__ import annotations

import os
import stat
import threading
import time

import httpx
import openai
import pytest

from lacewing.server.responses.database import Database
from lacewing.server.responses.store import Store
from tests.server.responses.conftest import client_of, events
from tests.server.scripted import Scripted
from tests.server.serving import running
from tests.timing import in_time, timely

HELLO = "My name is Alice."
QUICK = {"model": "tiny", "max_output_tokens": 4}


def texts(messages) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in messages]


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_goes_on_from_another(client, url, says, seen, stream):
    def ask(**body) -> str:
        return events(url, **body)[-1]["response"]["id"] if stream else client.responses.create(model="tiny", **body).id

    says("Hello Alice.")
    first = ask(input=HELLO, instructions="Be brief.")
    says("Alice.")
    second = ask(input="What is my name?", previous_response_id=first)
    assert texts(seen()[0]) == [("user", HELLO), ("assistant", "Hello Alice."), ("user", "What is my name?")]  # no instructions
    says("Yes.")
    third = client.responses.create(model="tiny", input="Sure?", previous_response_id=second)
    assert [role for role, _ in texts(seen()[0])] == ["user", "assistant"] * 2 + ["user"]
    assert third.previous_response_id == second
    listed = client.responses.input_items.list(third.id, order="asc")
    assert [item.role for item in listed] == ["user", "assistant", "user", "assistant", "user"]


def test_a_response_is_found_again(client, says):
    says("<think>Hm.</think>Hello.")
    made = client.responses.create(model="tiny", input=HELLO, metadata={"a": "b"}, temperature=0.5)
    found = client.responses.retrieve(made.id)
    assert found == made and found.metadata == {"a": "b"} and found.temperature == 0.5
    assert client.responses.input_items.list(made.id).data[0].content[0].text == HELLO
    client.responses.delete(made.id)
    for ask in (client.responses.retrieve, client.responses.delete, client.responses.input_items.list, client.responses.cancel):
        with pytest.raises(openai.NotFoundError, match="there is no response"):
            ask(made.id)
    with pytest.raises(openai.BadRequestError) as told:
        client.responses.create(**QUICK, input="?", previous_response_id=made.id)
    assert told.value.code == "previous_response_not_found"


def test_what_is_not_to_be_stored_is_not(client):
    made = client.responses.create(**QUICK, input=HELLO, store=False)
    assert made.store is False
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_references_to_items(client, says, seen):
    says("Hello Alice.")
    made = client.responses.create(model="tiny", input=HELLO)
    again = [
        {"role": "user", "content": HELLO},
        {"type": "item_reference", "id": made.output[0].id},
        {"role": "user", "content": "?"},
    ]
    client.responses.create(model="tiny", input=again)
    assert texts(seen()[0]) == [("user", HELLO), ("assistant", "Hello Alice."), ("user", "?")]


def test_an_id_that_somebody_chose_counts_in_its_own_conversation(client, seen):
    """Clients with another key could guess it."""
    made = client.responses.create(**QUICK, input=[{"role": "user", "content": HELLO, "type": "message", "id": "msg_1"}])
    reference = [{"type": "item_reference", "id": "msg_1"}]
    with pytest.raises(openai.BadRequestError) as told:
        client.responses.create(**QUICK, input=reference)
    assert told.value.code == "item_not_found"
    client.responses.create(**QUICK, input=reference, previous_response_id=made.id)
    assert texts(seen()[0])[-1] == ("user", HELLO)


def test_pages_of_items(client):
    words = [{"role": "user" if at % 2 == 0 else "assistant", "content": str(at)} for at in range(7)]
    made = client.responses.create(**QUICK, input=words)
    first = client.responses.input_items.list(made.id, limit=3)
    assert [item.content[0].text for item in first.data] == ["6", "5", "4"] and first.has_more
    assert [item.content[0].text for item in first] == list("6543210")  # the client turns the pages
    assert [item.content[0].text for item in client.responses.input_items.list(made.id, limit=2, order="asc")] == list("0123456")
    for query in ("limit=0", "limit=x", "order=up", "after=x"):
        response = httpx.get(f"{client.base_url}responses/{made.id}/input_items?{query}")
        assert response.status_code == 400 and response.json()["error"]["param"] == query.partition("=")[0]


def test_conversations(client, says, seen):
    begun = client.conversations.create(items=[{"type": "message", "role": "user", "content": HELLO}], metadata={"topic": "names"})
    assert begun.object == "conversation" and client.conversations.retrieve(begun.id) == begun
    says("Hello Alice.")
    made = client.responses.create(model="tiny", input="Greet me.", conversation=begun.id)
    assert made.conversation.id == begun.id
    says("Alice.")
    client.responses.create(model="tiny", input="What is my name?", conversation={"id": begun.id})
    assert [role for role, _ in texts(seen()[0])] == ["user", "assistant", "user"]  # two of the user's in a row are one
    items = client.conversations.items.list(begun.id, order="asc")
    assert [item.role for item in items] == ["user", "user", "assistant", "user", "assistant"]
    with pytest.raises(openai.BadRequestError, match="belongs to conversation"):
        client.responses.create(**QUICK, input="?", previous_response_id=made.id)
    added = client.conversations.items.create(begun.id, items=[{"type": "message", "role": "user", "content": "Bye."}])
    item = client.conversations.items.retrieve(added.data[0].id, conversation_id=begun.id)
    assert item.content[0].text == "Bye."
    client.conversations.items.delete(item.id, conversation_id=begun.id)
    with pytest.raises(openai.NotFoundError):
        client.conversations.items.retrieve(item.id, conversation_id=begun.id)
    assert client.conversations.update(begun.id, metadata={"topic": "other"}).metadata == {"topic": "other"}
    assert len(list(client.conversations.items.list(begun.id))) == 5
    assert client.conversations.delete(begun.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.conversations.retrieve(begun.id)
    assert client.responses.retrieve(made.id).output_text == "Hello Alice."


def test_a_server_that_starts_again(model, tmp_path):
    path = tmp_path / "deep" / "responses.sqlite3"

    def serve():
        registry = Scripted(model)
        registry.assistant.script = "Hello Alice."
        return registry, running(registry, store=Store(path, 30, 1 << 30))

    registry, server = serve()
    with server as url, client_of(url) as client:
        assert not path.exists()  # nothing is made before there is something to keep
        first = client.responses.create(model="tiny", input=HELLO)
        conversation = client.conversations.create(items=[{"role": "user", "content": HELLO}])
    registry, server = serve()
    with server as url, client_of(url) as client:
        assert client.responses.retrieve(first.id) == first
        client.responses.create(model="tiny", input="?", previous_response_id=first.id)
        assert texts(registry.assistant.seen[0]) == [("user", HELLO), ("assistant", "Hello Alice."), ("user", "?")]
        client.responses.create(model="tiny", input="?", conversation=conversation.id)
        assert registry.assistant.seen[0][0]["role"] == "user" and len(registry.assistant.seen[0]) == 1
    if os.name == "posix":
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert {stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()} == {0o600}


def test_a_response_whose_server_is_gone_has_failed(model, tmp_path):
    path = tmp_path / "responses.sqlite3"
    database = Database(path, 30, 1 << 30)
    body = {"id": "resp_1", "status": "in_progress", "output": [], "previous_response_id": None, "conversation": None}
    database.save({**body, "background": True}, [], owner="1 0.00")
    database.close()
    with running(Scripted(model), store=Store(path, 30, 1 << 30)) as url:
        found = httpx.get(f"{url}/v1/responses/resp_1").json()
        assert found["status"] == "failed" and found["error"]["code"] == "server_error"


def test_a_server_that_keeps_nothing(model):
    with running(Scripted(model)) as url, client_of(url) as client:
        made = client.responses.create(**QUICK, input=HELLO)
        assert made.store is False and made.status in ("completed", "incomplete")
        with pytest.raises(openai.APIStatusError, match="--no-store") as told:
            client.responses.retrieve(made.id)
        assert told.value.status_code == 501
        with pytest.raises(openai.BadRequestError, match="--no-store"):
            client.responses.create(**QUICK, input=HELLO, background=True)
        with pytest.raises(openai.APIStatusError):
            client.conversations.create()


def test_a_disk_that_fails_costs_no_answer(model, tmp_path, caplog):
    path = tmp_path / "no folder"
    path.write_text("a file")
    with running(Scripted(model), store=Store(path / "responses.sqlite3", 30, 1 << 30)) as url, client_of(url) as client:
        made = client.responses.create(**QUICK, input=HELLO)
        assert made.output_text and made.store is False
        assert events(url, input=HELLO)[-1]["response"]["store"] is False
        with pytest.raises(openai.APIStatusError, match="cannot be kept") as told:
            client.responses.create(**QUICK, input=HELLO, background=True)
        assert told.value.status_code == 503
    assert "response not kept" in caplog.text


@timely
def test_a_slow_disk_keeps_nobody_else_waiting(model, tmp_path, monkeypatch):
    save, writing = Database.save, threading.Event()

    def slow(self, *given, **named):
        writing.set()
        time.sleep(1.5)
        return save(self, *given, **named)

    store = Store(tmp_path / "responses.sqlite3", 30, 1 << 30)
    with monkeypatch.context() as patch, running(Scripted(model), store=store) as url, client_of(url) as client:
        patch.setattr(Database, "save", slow)
        asking = threading.Thread(target=lambda: client.responses.create(**QUICK, input=HELLO))
        asking.start()
        assert writing.wait(30)
        began = time.monotonic()
        assert httpx.get(f"{url}/health").status_code == 200
        seconds = time.monotonic() - began
        asking.join()
    in_time(seconds, 1)
