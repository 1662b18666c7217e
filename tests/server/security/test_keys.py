"""API keys."""

from __future__ import annotations

import hmac

import pytest

from lacewing.server.security import keys
from lacewing.server.security.keys import Keys
from tests.server.asking import ask, echo

APP = Keys(echo, ("first-key", "second-key"))


@pytest.mark.parametrize(
    ("header", "number"),
    [
        ({"authorization": "Bearer first-key"}, "0"),
        ({"authorization": "bearer  second-key "}, "1"),
        ({"x-api-key": "second-key"}, "1"),
    ],
)
def test_a_key_opens(header, number):
    answer = ask(APP, headers=header)
    assert answer.status_code == 200 and answer.headers["x-key"] == number


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"authorization": "Bearer first-ke"},
        {"authorization": "Bearer first-keyy"},
        {"authorization": "Bearer "},
        {"authorization": "Basic first-key"},
        {"authorization": "first-key"},
        {"authorization": "Bearer wrong", "x-api-key": "first-key"},  # one answer, whoever reads which header
        {"authorization": "Bearer pässword".encode("latin-1").decode("latin-1")},
        {"x-api-key": ""},
    ],
)
def test_nothing_else_does(header):
    answer = ask(APP, headers={name: value.encode("latin-1") for name, value in header.items()})
    assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"]["code"] == "invalid_api_key" and "first-key" not in answer.text


def test_health_is_open_and_nothing_beside_it():
    assert ask(APP, path="/health").status_code == ask(APP, path="/v1/health").status_code == 200
    for path in ("/healthz", "/health/", "http://localhost:8080//health", "/metrics", "/v1/models"):
        assert ask(APP, path=path).status_code == 401


def test_the_files_of_the_page_are_open_to_be_read():
    assert ask(APP, path="/").status_code == ask(APP, path="/page/main.js").status_code == 200
    assert ask(APP, "HEAD", "/").status_code == 200
    for method, path in (("POST", "/"), ("POST", "/page/main.js"), ("GET", "/page"), ("GET", "/pages/x"), ("GET", "/v1/page/x")):
        assert ask(APP, method, path).status_code == 401


def test_without_keys_all_may_ask():
    assert ask(Keys(echo, ())).headers["x-key"] == "None"


def test_all_keys_are_compared_in_constant_time(monkeypatch):
    compared = []
    monkeypatch.setattr(keys.hmac, "compare_digest", lambda one, other: compared.append((len(one), len(other))) or one == other)
    ask(APP, headers={"x-api-key": "first-key"})
    ask(APP, headers={"x-api-key": "no"})
    assert compared == [(32, 32)] * 4 and hmac is keys.hmac
