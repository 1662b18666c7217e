"""Requests as known clients send them, with what they read of the answers.

Continue and Cline: as their sources build them (core/llm/llms/Ollama.ts, src/core/api/providers/ollama.ts). Open WebUI: as its
routers/ollama.py and utils/payload.py do. aider: recorded from litellm 1.110.2, by which it talks to Ollama.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest

from lacewing.options import LoadOptions
from tests.server.serving import administered

SYSTEM = {"role": "system", "content": "You are a helpful assistant."}
TALK = [SYSTEM, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Why?"}]


def lines(url: str, path: str, body: dict) -> list[dict]:
    answer = httpx.post(f"{url}{path}", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def test_open_webui(server, name):
    """It lists, asks for versions and what is loaded, chats with what its settings hold, titles, embeds and unloads."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", httpx.get(f"{server}/api/version").json()["version"])
    (model,) = httpx.get(f"{server}/api/tags").json()["models"]
    assert {"name", "model", "modified_at", "size", "digest", "details"} <= set(model)
    options = {"temperature": 0.8, "num_ctx": 2048, "num_predict": 8, "seed": 42, "mirostat": 0, "mirostat_eta": 0.1, "top_p": 0.9,
               "mirostat_tau": 5, "repeat_penalty": 0, "repeat_last_n": 64, "tfs_z": 1, "num_keep": 24, "num_thread": 2, "min_p": 0,
               "use_mmap": True, "stop": [], "new_topic_penalty": 0}  # fmt: skip
    body = {"model": model["name"], "messages": TALK, "stream": True, "options": options, "keep_alive": "5m"}
    found = lines(server, "/api/chat", body)
    assert found[-1]["done"] and found[-1]["eval_count"] == 8 and found[-1]["prompt_eval_count"] > 20
    assert httpx.get(f"{server}/api/ps").json()["models"][0]["name"] == model["name"]
    title = {
        "model": model["name"],
        "messages": [{"role": "user", "content": "Title?"}],
        "stream": False,
        "options": {"num_predict": 4},
    }
    assert lines(server, "/api/chat", {**title, "think": False})[0]["message"]["role"] == "assistant"
    vectors = httpx.post(f"{server}/api/embed", json={"model": model["name"], "input": ["a", "b"], "truncate": True}, timeout=60)
    assert len(vectors.json()["embeddings"]) == 2
    gone = httpx.post(f"{server}/api/generate", json={"model": model["name"], "keep_alive": 0, "prompt": ""}, timeout=60)
    assert gone.json()["done_reason"] == "unload" and httpx.get(f"{server}/api/ps").json() == {"models": []}


def test_continue(server, name):
    """It learns the context from the parameters of /api/show, and sends it back with everything."""
    shown = httpx.post(f"{server}/api/show", json={"name": name}).json()
    (line,) = shown["parameters"].split("\n")
    key, context = re.fullmatch(r'(\S+)\s+((?:".*")|\S+)', line).groups()
    assert key == "num_ctx" and ".Suffix" not in shown["template"]
    options = {"temperature": 0.5, "num_predict": 6, "num_ctx": int(context), "stop": ["\n\n"]}
    body = {"model": name, "messages": TALK, "options": options, "keep_alive": 1800, "stream": True}
    text = ""
    for line in lines(server, "/api/chat", body):
        assert line["message"]["role"] == "assistant" and "error" not in line
        text += line["message"]["content"]
    assert text
    body = {"model": name, "prompt": "def add(a, b):", "raw": True, "options": {**options, "temperature": 0.01}, "keep_alive": 1800}
    assert "".join(line["response"] for line in lines(server, "/api/generate", {**body, "stream": True}))
    assert httpx.get(f"{server}/api/tags").json()["models"][0]["name"] == f"{name}:latest"


def test_cline(server, name):
    """A context of 32768 whatever the model has; the official client's fields."""
    talk = [
        SYSTEM,
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Go on."},
    ]
    body = {"model": f"{name}:latest", "messages": talk, "stream": True, "options": {"num_ctx": 32768, "num_predict": 8}}
    found = lines(server, "/api/chat", body)
    assert all(isinstance(line["message"]["content"], str) for line in found)
    last = found[-1]  # it is sampled, so the model may end before the limit
    assert (
        last["prompt_eval_count"] and 0 < last["eval_count"] <= 8 and (last["done_reason"] == "length") == (last["eval_count"] == 8)
    )


def test_aider(server, name):
    """By litellm: it asks what a model is, then chats with a num_ctx of its own reckoning, images as empty lists."""
    shown = httpx.post(f"{server}/api/show", json={"name": name}).json()
    assert shown["model_info"]["general.architecture"] == "llama" and shown["model_info"]["llama.context_length"] == 8192
    talk = [{**each, "images": []} for each in TALK]
    body = {"model": name, "messages": talk, "options": {"temperature": 0, "num_predict": 8, "num_ctx": 8300}}
    text = "".join(line["message"]["content"] for line in lines(server, "/api/chat", {**body, "stream": True}))
    (whole,) = lines(server, "/api/chat", {**body, "stream": False})
    assert whole["message"]["content"] == text != "" and whole["done_reason"] in ("stop", "length")
    prompt = "### System:\nYou are a helpful assistant.\n\n### User:\nHi\n\n"
    options = {"temperature": 0, "num_predict": 8, "num_ctx": 8300}
    (found,) = lines(server, "/api/generate", {"model": name, "prompt": prompt, "options": options, "stream": False, "images": []})
    assert found["response"] and found["eval_count"] == 8


@pytest.mark.slow
def test_filling_in(qwen_path: Path):
    """As Continue asks for it, of a model that can."""
    with administered(qwen_path, load=LoadOptions(sequences=2, context=2048, backend="cpu")) as (url, _):
        name = qwen_path.stem
        shown = httpx.post(f"{url}/api/show", json={"name": name}).json()
        assert ".Suffix" in shown["template"] and "insert" in shown["capabilities"]
        body = {"model": name, "prompt": "def add(a, b):\n    ", "suffix": "\n\nprint(add(1, 2))\n", "stream": False}
        found = httpx.post(
            f"{url}/api/generate", json={**body, "options": {"temperature": 0, "num_predict": 32}}, timeout=120
        ).json()
        assert found["response"].startswith("return a + b")
        raw = f"<|fim_prefix|>{body['prompt']}<|fim_suffix|>{body['suffix']}<|fim_middle|>"
        body = {"model": name, "prompt": raw, "raw": True, "stream": False, "options": {"temperature": 0, "num_predict": 32}}
        assert httpx.post(f"{url}/api/generate", json=body, timeout=120).json()["response"] == found["response"]
