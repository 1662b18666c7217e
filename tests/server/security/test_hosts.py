"""Host: which names a server answers to; DNS rebinding gets 421."""

from __future__ import annotations

import pytest

from lacewing.server.options import ServerOptions
from lacewing.server.security.binding import Binding
from lacewing.server.security.hosts import Hosts
from tests.server.asking import ask, echo

LOCAL, PUBLIC = Binding("127.0.0.1", 8080, False), Binding("0.0.0.0", 8080, True)
KEY = "k" * 20


def status(host: str | list[str], binding: Binding = LOCAL, **options: object) -> int:
    hosts = [host] if isinstance(host, str) else host
    app = Hosts(echo, ServerOptions(**options), binding)
    return ask(app, headers=[("host", each) for each in hosts]).status_code


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:8080", "127.0.0.1:8080", "[::1]:8080", "[::1]", "127.8.9.10", "localhost."]
)
def test_this_machine(host):
    assert status(host) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "192.168.0.7:8080",
        "[2001:db8::1]",
        "xn--a",
    ],
)
def test_a_foreign_name_is_refused(host):
    assert status(host) == 421
    assert status(host, allowed_hosts=("other.example",)) == 421


@pytest.mark.parametrize(
    "host", ["", "a b", "localhost:abc", "user@localhost", "http://localhost", "[::1", "a" * 300, "localhost/"]
)
def test_what_is_no_host_is_refused(host):
    assert status(host) == 400


def test_two_hosts_are_refused():
    assert status(["localhost", "localhost"]) == 400


def test_names_that_a_person_allows():
    assert status("lacewing.lan:80", allowed_hosts=("Lacewing.lan",)) == 200
    assert status("whatever.example", allowed_hosts=("*",)) == 200


def test_a_public_server():
    """Rebinding needs a name, and a key that the foreign page does not have."""
    assert status("192.168.0.7:8080", PUBLIC, allow_public=True) == 200
    assert status("evil.example", PUBLIC, allow_public=True) == 421
    assert status("gpu.lan", PUBLIC, api_keys=(KEY,)) == 200


def test_http_1_0_needs_none():
    async def run():
        sent = []

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/health", "headers": [], "http_version": "1.0"}
        await Hosts(echo, ServerOptions(), LOCAL)(scope, None, send)
        await Hosts(echo, ServerOptions(), LOCAL)({**scope, "http_version": "1.1"}, None, send)
        return [message["status"] for message in sent if "status" in message]

    import asyncio

    assert asyncio.run(run()) == [200, 400]
