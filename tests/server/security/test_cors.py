"""Web pages of other origins."""

from __future__ import annotations

import pytest

from lacewing.errors import OptionError
from lacewing.server.options import ServerOptions
from lacewing.server.security.cors import Cors
from tests.server.asking import ask, echo

PAGE = "https://chat.example"
APP = Cors(echo, (PAGE, "http://localhost:3000"))
PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type,x-stainless-os"}
FOREIGN = [
    "https://evil.example",
    "https://chat.example.evil.example",
    "http://chat.example",
    "https://chat.example:444",
    "null",
    "*",
]


def test_off_by_default():
    """No header, and a preflight is no endpoint."""
    app = Cors(echo, ())
    for method in ("GET", "OPTIONS"):
        answer = ask(app, method, headers={"origin": PAGE, **PREFLIGHT})
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_an_origin_may_read():
    answer = ask(APP, headers={"origin": PAGE})
    assert answer.headers["access-control-allow-origin"] == PAGE and answer.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in answer.headers


def test_a_preflight_is_answered():
    answer = ask(APP, "OPTIONS", headers={"origin": "http://localhost:3000", **PREFLIGHT})
    assert answer.status_code == 204 and answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == PREFLIGHT["access-control-request-headers"]


@pytest.mark.parametrize("origin", FOREIGN)
def test_others_may_not(origin):
    for method, headers in (("GET", {}), ("OPTIONS", PREFLIGHT)):
        answer = ask(APP, method, headers={"origin": origin, **headers})
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert answer.status_code == 403


def test_strange_names_of_headers_are_not_echoed():
    answer = ask(APP, "OPTIONS", headers={"origin": PAGE, **PREFLIGHT, "access-control-request-headers": "a;b"})
    assert "access-control-allow-headers" not in answer.headers


@pytest.mark.parametrize("origin", ["*", "chat.example", "https://chat.example/", "https://*.example", "https://"])
def test_an_origin_is_exact(origin):
    with pytest.raises(OptionError, match="--cors-origin"):
        ServerOptions(cors_origins=(origin,))
