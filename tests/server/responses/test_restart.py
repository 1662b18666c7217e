"""`lacewing serve` as a process that ends, politely or not, and starts again with what it kept."""

from __future__ import annotations

import os
import signal
import time

import httpx
import openai
import pytest

from tests.cli.test_serve import Process
from tests.server.responses.conftest import client_of


@pytest.mark.parametrize("how", [signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)])
def test_conversations_survive(tiny_path, tmp_path, how):
    file = tmp_path / "kept" / "responses.sqlite3"
    server = Process(tiny_path, "--store-file", file)
    model = server.endless["model"]
    sent = {"model": model, "max_output_tokens": 8}
    try:
        server.ready()
        with client_of(server.url) as client:
            first = client.responses.create(**sent, input="My name is Alice.")
            conversation = client.conversations.create(items=[{"role": "user", "content": "Hello"}])
            client.responses.create(**sent, input="Hello again", conversation=conversation.id)
            running = client.responses.create(
                model=model, input="Go on.", background=True, extra_body={"max_output_tokens": 100_000}
            )
            assert client.responses.retrieve(running.id).status in ("queued", "in_progress", "incomplete", "completed")
            over = client.responses.create(**sent, input="Go.", background=True)
            until = time.monotonic() + 30
            while client.responses.retrieve(over.id).status in ("queued", "in_progress"):
                assert time.monotonic() < until
            assert client.responses.cancel(over.id).status in ("incomplete", "completed")  # a POST without a body
    finally:
        if how == signal.SIGTERM:
            code, said = server.end()
            assert code == 0, said
        else:
            os.kill(server.process.pid, how)
            server.process.communicate()
    server = Process(tiny_path, "--store-file", file)
    try:
        server.ready()
        with client_of(server.url) as client:
            assert client.responses.retrieve(first.id) == first
            assert client.responses.retrieve(running.id).status in ("failed", "incomplete", "completed")
            second = client.responses.create(**sent, input="What is my name?", previous_response_id=first.id)
            assert len(client.responses.input_items.list(second.id).data) == 3
            assert len(client.conversations.items.list(conversation.id).data) == 3
            client.responses.delete(second.id)
            with pytest.raises(openai.NotFoundError):
                client.responses.retrieve(second.id)
    finally:
        server.end()


def test_a_server_that_is_told_to_keep_nothing(tiny_path, tmp_path):
    server = Process(tiny_path, "--no-store", "--store-file", tmp_path / "none" / "responses.sqlite3")
    try:
        server.ready()
        sent = {"model": server.endless["model"], "input": "Hello", "max_output_tokens": 4}
        assert httpx.post(f"{server.url}/v1/responses", json=sent, timeout=30).json()["store"] is False
    finally:
        server.end()
    assert not (tmp_path / "none").exists()
