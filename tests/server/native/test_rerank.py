"""/v1/rerank with a model that was trained for it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

import lacewing
from lacewing.assistant.ranking import Ranker
from lacewing.options import LoadOptions
from tests.assistant.rerankers import reranker
from tests.server.serving import administered

DOCUMENTS = ["about it", "something else, and longer than the others are", "x", "yet another one"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return reranker(tmp_path_factory.mktemp("models") / "ranks.gguf")


@pytest.fixture(scope="module")
def url(path) -> Iterator[str]:
    with administered(path, load=LoadOptions("cpu", threads=1, context=1024, sequences=3)) as (url, _):
        yield url


def ask(url: str, path: str = "/v1/rerank", **body):
    return httpx.post(f"{url}{path}", json={"query": "what is it?", "documents": DOCUMENTS, **body}, timeout=60)


def test_the_best_come_first(url, path):
    with lacewing.load(path, backend="cpu", threads=1, context=1024) as model:
        ranker = Ranker(model.info)
        ids = [ranker.ids("what is it?", text) for text in DOCUMENTS]
        expected = [ranker.score(hidden) for hidden in model.engine.embed(ids, "last")]
    found = ask(url).json()
    assert (found["model"], found["object"]) == ("ranks", "list")
    assert found["usage"] == {"prompt_tokens": sum(map(len, ids)), "total_tokens": sum(map(len, ids))}
    order = sorted(range(4), key=lambda index: -expected[index])
    assert found["results"] == [{"index": index, "relevance_score": expected[index]} for index in order]  # bitwise, on the CPU
    for path_ in ("/rerank", "/reranking", "/v1/reranking"):
        assert ask(url, path_, top_n=2).json()["results"] == found["results"][:2]
    told = ask(url, documents=[{"text": text} for text in DOCUMENTS], return_documents=True, top_n=9).json()["results"]
    assert told == [{**each, "document": {"text": DOCUMENTS[each["index"]]}} for each in found["results"]]
    other = ask(url, instruct="Find the opposite").json()["results"]
    assert {each["index"]: each["relevance_score"] for each in other} != dict(enumerate(expected))
    (model,) = httpx.get(f"{url}/models").json()["data"]
    assert model["capabilities"] == ["rerank"]


def test_what_is_wrong_with_a_request(url):
    for body, status, part in (
        ({"documents": []}, 400, "documents"),
        ({"query": ""}, 400, "query"),
        ({"top_n": 0}, 400, "top_n"),
        ({"documents": [{"title": "a"}]}, 400, "text"),
        ({"documents": ["word " * 2000]}, 400, "too long"),
        ({"query": "word " * 2000}, 400, "too long"),
        ({"model": "other"}, 404, "other"),
    ):
        answer = ask(url, **body)
        assert answer.status_code == status and part in answer.json()["error"]["message"], answer.text


def test_a_long_query_is_encoded_once(url, monkeypatch):
    """Not for each of thousands of documents, before the first prompt turns out to be too long."""
    made = []
    ids = Ranker.ids
    monkeypatch.setattr(Ranker, "ids", lambda *given: made.append(1) or ids(*given))
    assert ask(url, query="word " * 3000, documents=["x"] * 2048).status_code == 400 and len(made) == 1
