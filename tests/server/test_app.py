"""Paths beside those that answer: models, health, and what there is not."""

from __future__ import annotations

import httpx


def test_models(client):
    assert [each.id for each in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"


def test_an_unknown_model_and_other_paths(url):
    for method, path, status, code in [
        ("GET", "/v1/models/other", 404, "model_not_found"),
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
    ]:
        response = httpx.request(method, url + path)
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_health(url, registry):
    assert httpx.get(f"{url}/health").json() == {"status": "ok"}
    registry.health.status, registry.health.message = "loading", "the model is being read"
    response = httpx.get(f"{url}/v1/health")
    registry.health.status = "ok"
    assert response.status_code == 503 and response.json()["error"]["message"] == "the model is being read"


def test_a_body_of_another_kind_is_refused(url):
    """Such as a form, which any page may send without asking."""
    response = httpx.post(f"{url}/v1/chat/completions", content=b'{"messages": []}', headers={"content-type": "text/plain"})
    assert response.status_code == 415
