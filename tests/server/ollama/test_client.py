"""What the official client of Ollama makes of the server."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime

import ollama
import pytest

from lacewing.server.ollama import models

HELLO = [{"role": "user", "content": "Write about the sea."}]
GREEDY = {"temperature": 0, "num_predict": 24}
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 1, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def test_a_chat_and_its_stream(client, name):
    whole = client.chat(name, HELLO, options=GREEDY)
    assert whole.done and whole.done_reason == "length" and whole.message.role == "assistant" and whole.message.content
    assert whole.eval_count == 24 and whole.prompt_eval_count > 5 and whole.total_duration > whole.eval_duration > 0
    assert whole.load_duration >= 0 and whole.prompt_eval_duration > 0
    pieces = list(client.chat(f"{name}:latest", HELLO, options=GREEDY, stream=True))
    assert "".join(each.message.content for each in pieces) == whole.message.content and len(pieces) > 5
    assert [each.done for each in pieces] == [False] * (len(pieces) - 1) + [True]
    assert pieces[-1].model == f"{name}:latest" and pieces[-1].done_reason == "length" and pieces[-1].eval_count == 24
    assert datetime.fromisoformat(pieces[0].created_at[:26] + "+00:00") <= datetime.now(UTC)


def test_a_prompt_with_and_without_its_template(client, name):
    as_chat = client.generate(name, "Write about the sea.", options=GREEDY)
    assert as_chat.response == client.chat(name, HELLO, options=GREEDY).message.content
    template = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    raw = f"{template}<|im_start|>user\nWrite about the sea.<|im_end|>\n<|im_start|>assistant\n"
    found = client.generate(name, raw, raw=True, options=GREEDY)
    assert found.response == as_chat.response and found.prompt_eval_count == as_chat.prompt_eval_count
    assert found.context is None and len(as_chat.context) == as_chat.prompt_eval_count + 24
    follow = client.generate(name, "And the sky?", context=as_chat.context, options=GREEDY)
    assert follow.prompt_eval_count > len(as_chat.context)
    pieces = list(client.generate(name, "Write about the sea.", options=GREEDY, stream=True))
    assert "".join(each.response for each in pieces) == as_chat.response
    assert list(pieces[-1].context) == list(as_chat.context)


def test_what_the_system_says_and_templates_by_name(client, name):
    system = client.generate(name, "Hi", system="Answer in French.", options=GREEDY)
    assert system.prompt_eval_count != client.generate(name, "Hi", options=GREEDY).prompt_eval_count
    chatml = client.generate(name, "Hi", template="chatml", options=GREEDY)
    jinja = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{{ '<|im_start|>assistant\n' }}"
    )
    assert client.generate(name, "Hi", template=jinja, options=GREEDY).response == chatml.response
    with pytest.raises(ollama.ResponseError, match="Go's language are not supported") as raised:
        client.generate(name, "Hi", template="{{ .System }} {{ .Prompt }}")
    assert raised.value.status_code == 400


def test_texts_that_follow_a_schema(client, name):
    found = client.chat(name, [{"role": "user", "content": "Tell me of Ada, 36, as JSON."}], format=SCHEMA, options={"seed": 1})
    assert set(json.loads(found.message.content)) == {"name", "age"}
    pieces = client.generate(name, "Tell me of Ada, 36.", format=SCHEMA, options={"seed": 1}, stream=True)
    assert set(json.loads("".join(each.response for each in pieces))) == {"name", "age"}
    free = client.generate(name, "An object:", raw=True, format="json", options={"seed": 1, "num_predict": 300})
    assert free.response.lstrip().startswith("{")


def test_num_ctx_is_a_cap_and_no_reload(client, name):
    client.chat(name, HELLO, options=GREEDY)
    before = client.ps().models[0]
    found = client.chat(name, HELLO, options={"num_ctx": 64, "temperature": 0})
    assert found.prompt_eval_count + found.eval_count == 64 and found.done_reason == "length"
    assert client.chat(name, HELLO, options={"num_ctx": 10**6, "num_predict": 2}).eval_count == 2
    assert client.ps().models[0].context_length == before.context_length == 2048
    talk = []
    for turn in range(20):
        talk += [{"role": "user", "content": f"Question {turn}?"}, {"role": "assistant", "content": f"Answer {turn}."}]
    talk.append({"role": "user", "content": "And the last one?"})
    fitted = client.chat(name, talk, options={"num_ctx": 128, "num_predict": 4})
    assert fitted.prompt_eval_count <= 128 and fitted.eval_count == 4
    with pytest.raises(ollama.ResponseError, match="makes 128 tokens the maximum") as raised:
        client._request(ollama.ChatResponse, "POST", "/api/chat", json={"model": name, "messages": talk, "truncate": False,
                        "stream": False, "options": {"num_ctx": 128}})  # fmt: skip
    assert raised.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match="makes 32 tokens the maximum"):
        client.generate(name, "word " * 100, options={"num_ctx": 32})


def test_lists_of_models(client, name):
    (model,) = client.list().models
    assert model.model == f"{name}:latest" and model.size > 90e6 and len(model.digest) == 64
    assert (
        model.details.family == "llama" and model.details.parameter_size == "134.52M" and model.details.quantization_level == "Q4_1"
    )
    found = client.show(model.model)
    assert found.capabilities == ["completion"] and found.modelinfo["llama.context_length"] == 8192
    assert found.modelinfo["general.architecture"] == "llama" and "im_start" in found.template
    assert found.parameters.split() == ["num_ctx", "2048"]
    client.chat(name, HELLO, options=GREEDY)
    (running,) = client.ps().models
    assert running.model == model.model and running.size > 0 and running.size_vram == 0


def test_how_long_a_model_stays(client, name):
    client.generate(name, keep_alive="10m")
    (running,) = client.ps().models
    left = (running.expires_at - datetime.now(UTC)).total_seconds()
    assert 590 < left <= 600
    for long in (-1, 1e12, 1e300, "9999999999999h"):
        client.generate(name, keep_alive=long)
        assert (client.ps().models[0].expires_at - datetime.now(UTC)).days > 1000
    gone = client.generate(name, keep_alive=0)
    assert gone.done_reason == "unload" and client.ps().models == []
    assert client.chat(name, []).done_reason == "load" and len(client.ps().models) == 1
    client.chat(name, HELLO, options=GREEDY, keep_alive="1s")
    began = time.monotonic()
    while client.ps().models:
        assert time.monotonic() - began < 30
        time.sleep(0.1)
    assert client.chat(name, HELLO, options=GREEDY, keep_alive="5m").done


def test_a_model_that_leaves_while_it_is_listed(client, name, monkeypatch):
    client.chat(name, [])
    sums = models._sums

    def leaving():
        client.generate(name, keep_alive=0)
        return sums()

    monkeypatch.setattr(models, "_sums", leaving)
    assert client.ps().models == []


def test_vectors(client, name):
    found = client.embed(name, ["The sea is wide.", "A cat sat."])
    first, second = found.embeddings
    assert len(first) == len(second) == 576 and abs(sum(value * value for value in first) - 1) < 1e-3
    assert found.prompt_eval_count > 6 and found.total_duration > 0
    (alone,) = client.embed(name, "The sea is wide.").embeddings
    assert alone == first
    old = client.embeddings(name, "The sea is wide.").embedding
    length = sum(value * value for value in old) ** 0.5
    assert length > 1.5 and max(abs(a / length - b) for a, b in zip(old, first, strict=True)) < 1e-5
    assert len(client.embed(name, "Hi", dimensions=64).embeddings[0]) == 64
    assert client.embed(name, "word " * 3000).prompt_eval_count == 2048
    with pytest.raises(ollama.ResponseError, match="2048 tokens"):
        client.embed(name, "word " * 3000, truncate=False)
    assert client.embed(name, []).embeddings == []


def test_logprobs(client, name):
    found = client.chat(name, HELLO, options={"temperature": 0, "num_predict": 4}, logprobs=True, top_logprobs=2)
    assert len(found.logprobs) == 4 and len(found.logprobs[0].top_logprobs) == 2
    assert "".join(each.token for each in found.logprobs) == found.message.content
    assert found.logprobs[0].logprob == found.logprobs[0].top_logprobs[0].logprob <= 0
    pieces = list(client.chat(name, HELLO, options={"temperature": 0, "num_predict": 4}, logprobs=True, stream=True))
    assert [each.token for piece in pieces for each in piece.logprobs or ()] == [each.token for each in found.logprobs]


def test_what_there_is_not(client, name):
    for work, status, part in (
        (lambda: client.chat("other", HELLO), 404, "no model"),
        (lambda: client.show("other"), 404, "no model"),
        (lambda: client.pull("hf:some/where"), 404, "cannot be fetched"),
        (lambda: client.delete(name), 501, "deletes nothing"),
        (lambda: client.copy(name, "copy"), 501, "one name"),
        (lambda: client.create("mine", from_=name), 501, "files"),
        (lambda: client.push(name), 501, "away"),
        (lambda: client.chat(name, HELLO, think=True), 400, "does not support thinking"),
        (lambda: client.generate(name, "a", suffix="b"), 400, "does not support insert"),
        (lambda: client.generate(name, "a", images=[b"png"]), 400, "text only"),
        (lambda: client.generate(name, "a", raw=True, system="b"), 400, "raw mode"),
        (lambda: client.chat(name, HELLO, options={"typical_p": 0.5}), 400, "typical_p"),
        (lambda: client.chat(name, HELLO, options={"temperature": -1}), 400, "temperature"),
        (lambda: client.chat(name, HELLO, keep_alive="soon"), 400, "keep_alive"),
    ):
        with pytest.raises(ollama.ResponseError, match=part) as raised:
            work()
        assert raised.value.status_code == status


def test_pulling_what_is_here(client, name):
    assert client.pull(name).status == "success"
    assert [each.status for each in client.pull(name, stream=True)] == ["pulling manifest", "success"]
