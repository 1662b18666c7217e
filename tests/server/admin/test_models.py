"""Models come, change and go while others are answered, and those who watch are told."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from lacewing.options import LoadOptions
from tests.checkpoints import tiny
from tests.server.serving import administered

HELLO = [{"role": "user", "content": "Write about the sea."}]
LOAD = LoadOptions(sequences=4, context=2048, residency="lazy", backend="cpu")


@pytest.fixture(scope="module")
def server(smollm2_path: Path) -> Iterator[str]:
    with administered(smollm2_path, load=LOAD) as (url, _):
        yield url


@pytest.fixture
def name(smollm2_path: Path) -> str:
    return smollm2_path.stem


def load(url: str, name: str, **fields) -> dict:
    answer = httpx.post(f"{url}/models/load", json={"model": name, "wait": True, **fields}, timeout=120)
    assert answer.status_code == 200, answer.text
    assert answer.json()["success"] is True
    return answer.json()


class Stream(threading.Thread):
    """An answer that comes, in a thread of its own."""

    def __init__(self, url: str, name: str, tokens: int):
        super().__init__()
        self.body = {"model": name, "messages": HELLO, "stream": True, "temperature": 0, "max_tokens": tokens}
        self.url, self.text, self.reason = url, "", None
        self.first = threading.Event()

    def run(self) -> None:
        body = {**self.body, "ignore_eos": True, "repeat_guard": 0}
        with httpx.stream("POST", f"{self.url}/v1/chat/completions", json=body, timeout=120) as response:
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    event = json.loads(line.removeprefix("data: "))
                    if "choices" not in event:
                        self.reason = event
                        continue
                    choice = event["choices"][0]
                    self.text += choice["delta"].get("content") or ""
                    self.reason = choice["finish_reason"] or self.reason
                    self.first.set()

    def __enter__(self) -> Stream:
        self.start()
        assert self.first.wait(120)
        return self

    def __exit__(self, *_: object) -> None:
        self.join()


class Watch(threading.Thread):
    """What /models/sse tells."""

    def __init__(self, url: str):
        super().__init__()
        self.url, self.events, self.over = url, [], False

    def run(self) -> None:
        with contextlib.suppress(httpx.ReadTimeout), httpx.stream("GET", f"{self.url}/models/sse", timeout=0.5) as response:
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            for line in response.iter_lines():
                if line.startswith("data: "):
                    self.events.append(json.loads(line.removeprefix("data: ")))
                if self.over:
                    return

    def until(self, true, seconds: float = 60.0) -> None:
        began = time.monotonic()
        while not any(map(true, list(self.events))):
            assert time.monotonic() - began < seconds, self.events
            time.sleep(0.02)
            if not self.is_alive():
                again = Watch(self.url)
                again.events = self.events
                self.__dict__ = again.__dict__
                self.start()


def test_the_list_tells_how_models_are(server, name):
    load(server, name)
    (model,) = httpx.get(f"{server}/v1/models").json()["data"]
    assert httpx.get(f"{server}/models").json()["data"][0]["id"] == model["id"] == name
    assert (model["object"], model["owned_by"], model["default"]) == ("model", "lacewing", True)
    assert model["status"] == {"value": "loaded"}
    assert (model["residency"], model["context"], model["backend"]) == ("lazy", 2048, "cpu")
    assert (model["template"], model["template_choice"]) == ("checkpoint", "auto")
    assert model["meta"]["n_params"] == 134515008 and model["meta"]["n_ctx_train"] == 8192 and model["meta"]["quant"] == "Q4_1"
    assert model["capabilities"] == ["completion"] and model["experts"] is None and model["memory_bytes"] > 0
    assert httpx.get(f"{server}/v1/models/{name}").json()["meta"] == model["meta"]


def test_a_stream_goes_on_while_the_residency_changes(server, name):
    load(server, name, residency="lazy")
    alone = Stream(server, name, 120)
    with alone:
        pass
    with Stream(server, name, 120) as stream:
        assert load(server, name, residency="eager")["model"]["residency"] == "eager"
        assert load(server, name, residency="eager")["changed"] == []
        assert load(server, name, residency="lazy")["changed"] == ["residency"]
    assert stream.reason == "length" and stream.text == alone.text  # bitwise the same weights


def test_a_stream_keeps_its_template_and_the_next_has_another(server, name):
    body = {"model": name, "messages": HELLO}
    before = httpx.post(f"{server}/apply-template", json=body).json()["prompt"]
    with Stream(server, name, 60) as stream:
        found = load(server, name, template="raw")
        assert found["changed"] == ["template"] and found["model"]["template"] == found["model"]["template_choice"] == "raw"
    assert stream.reason == "length"
    assert "<|im_start|>" not in httpx.post(f"{server}/apply-template", json=body).json()["prompt"]
    rows = httpx.get(f"{server}/models/templates").json()["data"]
    assert [row["name"] for row in rows if row["active"]] == ["raw"]
    assert {"auto", "chatml", "llama3"} <= {row["name"] for row in rows}
    assert any(row["findings"] for row in rows if row["name"] == "llama3")
    load(server, name, template="auto")
    assert httpx.post(f"{server}/apply-template", json=body).json()["prompt"] == before


def test_a_template_that_does_not_fit_changes_nothing(server, name):
    load(server, name)
    for template, part in (("nonsense", "no chat template"), ("llama3", "lacks"), ("/etc/passwd", "no chat template")):
        body = {"model": name, "template": template, "wait": True}
        answer = httpx.post(f"{server}/models/load", json=body, timeout=60)
        assert answer.status_code == 400 and part in answer.json()["error"]["message"], answer.text
    assert httpx.get(f"{server}/models").json()["data"][0]["template_choice"] == "auto"
    assert load(server, name, template="llama3", force=True)["changed"] == ["template"]
    load(server, name, template="auto")


def test_another_context_beside_answers_under_way(server, name):
    with Stream(server, name, 200) as stream:
        found = load(server, name, context=1024)
        assert found["changed"] == ["context"] and found["model"]["context"] == 1024
        long = {"model": name, "prompt": "word " * 1500, "max_tokens": 1}
        refused = httpx.post(f"{server}/v1/completions", json=long, timeout=60)
        assert refused.status_code == 400 and refused.json()["error"]["n_ctx"] == 1024
    assert stream.reason == "length"
    found = load(server, name, context=None)
    assert found["model"]["context"] == 2048 and found["changed"] == ["context"]
    assert httpx.post(f"{server}/v1/completions", json=long, timeout=60).status_code == 200


def test_a_context_in_place_waits_for_answers(smollm2_path, name, monkeypatch):
    """Where there is no room for both, the old model leaves once its answers are over; those who come meanwhile wait."""
    monkeypatch.setattr("lacewing.server.models.changing.Changer._beside", lambda *_: None)
    with administered(smollm2_path, load=LOAD) as (url, registry):
        load(url, name)
        old = registry.served[0]
        with Stream(url, name, 150) as stream:
            changing = httpx.post(f"{url}/models/load", json={"model": name, "context": 512}, timeout=60)
            assert changing.json() == {"success": True}
            late = Stream(url, name, 8)
            late.start()
        late.join()
        assert stream.reason == late.reason == "length"
        assert load(url, name)["changed"] == [] and not old.model.on_device  # it waits for its turn
        assert registry.served[0].model.spec.context == 512


def test_leaving_and_coming_back_with_events(server, name):
    load(server, name)
    watch = Watch(server)
    watch.start()
    watch.until(lambda event: event["event"] == "model_status" and event["data"]["status"] == "loaded")
    with Stream(server, name, 60) as stream:
        answer = httpx.post(f"{server}/models/unload", json={"model": name, "wait": True}, timeout=60)
        assert answer.json()["changed"] == ["unloaded"] and answer.json()["model"]["status"] == {"value": "unloaded"}
        assert not stream.is_alive() or stream.reason == "length"
    assert stream.reason == "length"
    watch.until(lambda event: event.get("data") == {"status": "unloaded"})
    watch.events.clear()
    assert load(server, name)["changed"] == ["loaded"]
    watch.until(lambda event: event["data"].get("info", {}).get("context") == 2048)
    loading = [event["data"] for event in watch.events if event["data"]["status"] == "loading"]
    assert loading and all(0 <= each["progress"]["value"] <= 1 and each["progress"]["current"] for each in loading)
    watch.over = True
    httpx.post(f"{server}/models/load", json={"model": name, "template": "raw"})
    httpx.post(f"{server}/models/load", json={"model": name, "template": "auto", "wait": True})
    watch.join()


def test_force_ends_answers(server, name):
    load(server, name)
    with Stream(server, name, 1500) as stream:
        answer = httpx.post(f"{server}/models/unload", json={"model": name, "wait": True, "force": True}, timeout=60)
        assert answer.json()["changed"] == ["unloaded"]
    assert "closed" in stream.reason["error"]["message"]
    again = httpx.post(f"{server}/models/unload", json={"model": name, "wait": True})
    assert again.json()["changed"] == []


def test_what_runs_can_be_seen(server, name):
    load(server, name)
    with Stream(server, name, 150):
        seen = httpx.get(f"{server}/models/activity").json()
    assert seen["status"] == "loaded" and seen["context"] == 2048 and seen["requests"] == {"running": 1, "waiting": 0, "limit": 4}
    (sequence,) = seen["sequences"]
    assert sequence["tokens"] == sequence["prompt_tokens"] + sequence["generated_tokens"] and sequence["prompt_tokens"] > 5
    assert seen["kv"]["pages_used"] > 0
    assert httpx.get(f"{server}/models/activity").json()["sequences"] == []
    refused = httpx.get(f"{server}/models/experts")
    assert refused.status_code == 400 and refused.json()["error"]["code"] == "not_a_mixture"


def test_bad_requests(server, name):
    for path, body, status in (
        ("load", {"model": "other"}, 404),
        ("load", {"model": name, "residency": "fast"}, 400),
        ("load", {"model": name, "context": 0}, 400),
        ("load", {"model": name, "contxt": 1}, 400),
        ("unload", {"model": "other"}, 404),
    ):
        answer = httpx.post(f"{server}/models/{path}", json=body)
        assert answer.status_code == status and answer.json()["error"]["message"], answer.text
    answer = httpx.post(f"{server}/models", json={"model": "hf:some/where"})
    assert answer.status_code == 404 and "smollm2" in answer.json()["error"]["message"]
    httpx.post(f"{server}/models/unload", json={"model": name, "wait": True})
    assert httpx.get(f"{server}/models/templates").status_code == 409
    assert {row["name"] for row in httpx.get(f"{server}/models/known").json()["data"]} >= {"smollm2"}


def test_experts_are_counted_while_somebody_looks(tmp_path):
    mixture_path = tiny("qwen3moe", "gguf", tmp_path)
    with administered(mixture_path, load=LoadOptions(sequences=2, context=256, backend="cpu")) as (url, _):
        name = mixture_path.stem
        load(url, name)
        first = httpx.get(f"{url}/models/experts").json()
        assert first["tokens"] == 0
        (model,) = httpx.get(f"{url}/models").json()["data"]
        assert model["experts"]["count"] == first["experts"] and model["experts"]["active"] == first["active"]
        body = {"model": name, "prompt": "Hello", "max_tokens": 8, "ignore_eos": True}
        httpx.post(f"{url}/v1/completions", json=body, timeout=60)
        seen = httpx.get(f"{url}/models/experts").json()
        assert seen["tokens"] >= 8 and len(seen["layers"]) == model["experts"]["layers"]
        for layer in seen["layers"]:
            assert len(layer["tokens"]) == seen["experts"] and sum(layer["tokens"]) == seen["tokens"] * seen["active"]


def test_where_the_experts_of_a_streamed_model_were(tmp_path):
    mixture_path = tiny("qwen3moe", "gguf", tmp_path)
    with administered(mixture_path, load=LoadOptions(context=256, backend="cpu")) as (url, _):
        name = mixture_path.stem
        load(url, name)
        assert httpx.get(f"{url}/models/experts").json()["found"] is None
        httpx.post(f"{url}/models/load", json={"model": name, "residency": "streamed", "wait": True}, timeout=60)
        httpx.post(f"{url}/v1/completions", json={"model": name, "prompt": "Hello", "max_tokens": 8}, timeout=60)
        found = httpx.get(f"{url}/models/experts").json()["found"]
        assert found["gpu"] == 0 and found["ram"] > 0 and found["disk"] > 0


def test_force_goes_before_one_that_waits(server, name):
    """Who unloads a model and sees that its answers take long may end them after all."""
    load(server, name)
    with Stream(server, name, 1500) as stream:
        assert httpx.post(f"{server}/models/unload", json={"model": name}).json() == {"success": True}
        began = time.monotonic()
        while "progress" not in httpx.get(f"{server}/models").json()["data"][0]["status"]:
            assert time.monotonic() - began < 20, "nobody is told that it waits for answers"
        answer = httpx.post(f"{server}/models/unload", json={"model": name, "wait": True, "force": True}, timeout=60)
        assert answer.json()["changed"] == ["unloaded"]
    assert "closed" in stream.reason["error"]["message"]
