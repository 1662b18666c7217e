"""Continuations, filling in, properties and slots as llama-server's clients ask for them."""

from __future__ import annotations

import json

import httpx
import pytest

from lacewing.server.native import filling
from lacewing.text.fill import fill_marks

SEA = {"prompt": "The sea is", "temperature": 0, "n_predict": 12}


def post(url: str, path: str, **body) -> httpx.Response:
    return httpx.post(f"{url}{path}", json=body, timeout=60)


def events(url: str, path: str, **body) -> list[dict]:
    answer = post(url, path, stream=True, **body)
    assert answer.status_code == 200 and answer.headers["content-type"] == "text/event-stream; charset=utf-8", answer.text
    lines = [line for line in answer.text.split("\n\n") if line]
    assert all(line.startswith("data: {") for line in lines)  # and no [DONE]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def test_a_continuation(url, model):
    expected = model.generate("The sea is", temperature=0, max_tokens=12)
    found = post(url, "/completion", **SEA, return_tokens=True).json()
    assert found["content"] == expected and found["stop"] and found["stop_type"] == "limit" and not found["truncated"]
    assert model.detokenize(found["tokens"]) == expected.lstrip(" ") or model.detokenize(found["tokens"]) == expected
    assert found["tokens_predicted"] == 12 and found["tokens_evaluated"] == len(model.tokenize("The sea is"))
    assert found["prompt"] == "The sea is" and found["timings"]["predicted_n"] == 12 and found["model"] == "tiny"
    assert found["generation_settings"]["temperature"] == 0 and found["generation_settings"]["n_predict"] == 12
    assert post(url, "/completions", **SEA).json()["content"] == expected
    *pieces, last = events(url, "/completion", **SEA)
    assert "".join(each["content"] for each in pieces) == expected and last["content"] == ""
    assert [each["stop"] for each in pieces] == [False] * len(pieces) and last["stop"] and last["stop_type"] == "limit"
    assert [token for each in pieces for token in each["tokens"]] == found["tokens"]


def test_prompts_of_every_kind(url, model):
    ids = model.tokenize("The sea is")
    text = post(url, "/completion", **SEA).json()["content"]
    for prompt in (ids, [*ids[:1], model.detokenize(ids[1:])], [*ids[:-1], " is"]):
        assert post(url, "/completion", **{**SEA, "prompt": prompt}).json()["content"] == text
    several = post(url, "/completion", **{**SEA, "prompt": ["The sea is", ids, "A cat"]}).json()
    assert [each["index"] for each in several] == [0, 1, 2] and [each["content"] for each in several[:2]] == [text, text]
    assert post(url, "/completion", **{**SEA, "prompt": ["The sea is"]}).json()[0]["content"] == text
    rendered = post(url, "/apply-template", messages=[{"role": "user", "content": "Hi"}]).json()["prompt"]
    chat = post(url, "/completion", prompt=rendered, temperature=0, n_predict=8).json()
    assert chat["content"] == "".join(model.chat([{"role": "user", "content": "Hi"}], temperature=0, max_tokens=8))


def test_how_it_stopped(url):
    whole = post(url, "/completion", **SEA).json()["content"]
    word = whole.split()[2]
    found = post(url, "/completion", **SEA, stop=[word]).json()
    assert (found["stop_type"], found["stopping_word"]) == ("word", word) and word not in found["content"]
    read = post(url, "/completion", **{**SEA, "n_predict": 0}).json()
    assert read["content"] == "" and read["tokens_predicted"] == 0
    body = {"json_schema": {"type": "boolean"}, "temperature": 0, "prompt": "true or false:"}
    found = post(url, "/completion", **body).json()
    assert found["content"] in ("true", "false") and found["stop_type"] == "eos"


def test_probabilities(url):
    found = post(url, "/completion", **SEA, n_probs=3).json()
    told = found["completion_probabilities"]
    assert len(told) == 12 and "".join(each["token"] for each in told) == found["content"]
    for each in told:
        assert set(each) == {"id", "token", "bytes", "logprob", "top_logprobs"} and len(each["top_logprobs"]) == 3
        assert each["id"] == each["top_logprobs"][0]["id"] and bytes(each["bytes"]).decode() == each["token"]


def test_marks_by_metadata_and_where_texts_stand(model, monkeypatch):
    """Texts of users never are marks, whatever they spell."""
    tokenizer = model.tokenizer
    assert fill_marks({}, tokenizer) is None
    keys = {"fim_pre": 3, "suffix": 4, "fim_mid": 5, "fim_rep": 6, "fim_sep": 7}
    metadata = {f"tokenizer.ggml.{key}_token_id": token for key, token in keys.items()}
    marks = fill_marks(metadata, tokenizer)
    assert (marks.prefix, marks.suffix, marks.middle, marks.repository, marks.file) == (3, 4, 5, 6, 7)
    monkeypatch.setattr(filling, "marks_of", lambda *_: marks)
    text = tokenizer.encode
    ids = filling.filled(model, "a <|im_end|>", "b", "c")
    assert ids == [3, *text("a <|im_end|>"), 4, *text("b"), 5, *text("c")]
    assert tokenizer.control_tokens["<|im_end|>"] not in ids
    extra = filling.filled(model, "a", "b", extra=[("x.py", "one")])
    assert extra == [6, *text("project\n"), 7, *text("x.py\none\n"), 7, *text("filename\n"), 3, *text("a"), 4, *text("b"), 5]


def test_errors(url):
    for path, body, status, part in (
        ("/completion", {}, 400, "`prompt`"),
        ("/completion", {"prompt": []}, 400, "prompt"),
        ("/completion", {"prompt": "a", "mirostat": 2}, 400, "mirostat"),
        ("/completion", {"prompt": [10**9]}, 400, "vocabulary"),
        ("/completion", {"prompt": "a", "n": 2}, 400, "`n`"),
        ("/completion", {"prompt": "a", "model": "other"}, 404, "other"),
        ("/infill", {"input_prefix": "a"}, 400, "input_suffix"),
        ("/infill", {"input_prefix": "a", "input_suffix": "b"}, 501, "does not support insert"),
        ("/v1/rerank", {"query": "a"}, 400, "documents"),
        ("/v1/rerank", {"query": "a", "documents": ["b"]}, 501, "cannot rank"),
        ("/reranking", {"query": "a", "documents": ["b"]}, 501, "cannot rank"),
        ("/props", {}, 501, "/models/load"),
        ("/slots/0?action=save", {}, 501, "slots"),
    ):
        answer = post(url, path, **body)
        assert answer.status_code == status and part in answer.json()["error"]["message"], answer.text


def test_a_model_that_is_not_in_memory_has_no_slots(url, registry, monkeypatch):
    monkeypatch.setattr(registry, "served", None)
    answer = httpx.get(f"{url}/slots?fail_on_no_slot=1")
    assert answer.status_code == 200 and answer.json() == []


def test_properties_and_slots(url, model):
    post(url, "/completion", **SEA)
    found = httpx.get(f"{url}/props").json()
    assert found["total_slots"] == 4 and found["default_generation_settings"]["n_ctx"] == model.spec.context
    assert found["chat_template"] == model.template.source and found["model_alias"] == "tiny" and not found["is_sleeping"]
    assert found["model_path"] == model.path.name and found["default_generation_settings"]["params"]["temperature"] == 0.8
    slots = httpx.get(f"{url}/slots?fail_on_no_slot=1").json()
    assert [each["id"] for each in slots] == [0, 1, 2, 3] and not any(each["is_processing"] for each in slots)
    with httpx.stream("POST", f"{url}/completion", json={**SEA, "n_predict": 4000, "ignore_eos": True, "stream": True}) as response:
        lines = response.iter_lines()  # kept: an iterator that is gone closes the connection
        next(lines)
        (busy,) = [each for each in httpx.get(f"{url}/slots").json() if each["is_processing"]]
        assert busy["n_prompt_tokens"] == 3 and busy["next_token"]["n_decoded"] > 0 and busy["n_ctx"] == model.spec.context


@pytest.mark.slow
def test_filling_in(qwen_path):
    """As llama.vim asks for it."""
    from lacewing.options import LoadOptions
    from tests.server.serving import administered

    with administered(qwen_path, load=LoadOptions(sequences=2, context=2048, backend="cpu")) as (url, _):
        body = {"input_prefix": "def add(a, b):\n", "prompt": "    ", "input_suffix": "\n\nprint(add(1, 2))\n", "n_predict": 24,
                "temperature": 0, "stop": ["\n"], "cache_prompt": True, "samplers": ["top_k", "top_p", "infill"],
                "t_max_predict_ms": 60000, "n_indent": 4, "input_extra": [{"filename": "a.py", "text": "x = 1\n"}]}  # fmt: skip
        found = post(url, "/infill", **body).json()
        assert found["content"].strip() == "return a + b" and found["stop_type"] in ("word", "eos")
        openai = {"model": qwen_path.stem, "prompt": "def add(a, b):\n    ", "suffix": body["input_suffix"], "temperature": 0}
        assert post(url, "/v1/completions", **openai, stop=["\n"]).json()["choices"][0]["text"].strip() == "return a + b"
        *pieces, last = events(url, "/infill", **body)
        assert "".join(each["content"] for each in pieces) == found["content"] and last["stop"]
