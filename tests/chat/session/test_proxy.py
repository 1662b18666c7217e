"""A server behind a proxy that gives up requests in which nothing comes for long."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from lacewing.api import Model
from lacewing.chat.client.connection import Connection
from lacewing.chat.commands import server
from lacewing.chat.commands.table import run_line
from lacewing.chat.session.remote import RemoteSession
from lacewing.options import LoadOptions
from lacewing.server.models import loading
from tests.server.serving import administered


@contextlib.contextmanager
def impatient(address: str, seconds: float) -> Iterator[str]:
    """A proxy that gives up a request to which nothing has come for so long, as nginx and load balancers do."""

    class Handler(BaseHTTPRequestHandler):
        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name: self.headers[name] for name in ("Content-Type", "Prefer") if name in self.headers}
            try:
                found = httpx.request(self.command, address + self.path, content=body, headers=headers, timeout=seconds)
                status, content = found.status_code, found.content
            except httpx.ReadTimeout:
                status, content = 504, b"<html>504 Gateway Time-out</html>"
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = forward

        def log_message(self, *_: object) -> None:
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = threading.Thread(target=proxy.serve_forever)
    serving.start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}"
    finally:
        proxy.shutdown()
        serving.join()
        proxy.server_close()


@pytest.mark.parametrize(("line", "told"), [("/lazy on", "weights eager -> lazy"), ("/template raw --force", "-> raw")])
def test_a_change_that_takes_longer_than_the_proxy_waits(paths, monkeypatch, line, told):
    """It is asked for in pieces: no request is silent for long."""
    monkeypatch.setattr(server, "PREFER", {"Prefer": "respond-async, wait=1"})
    for owner, name in ((Model, "set_residency"), (loading, "use_template")):
        work = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *given, work=work, **more: time.sleep(6) or work(*given, **more))
    load = LoadOptions("cpu", context=256, threads=1, sequences=2)
    with administered(paths["llama"], load=load) as (address, _), impatient(address, 4) as through:
        chat = RemoteSession(Connection(through))
        run_line(chat, f"/model {chat.name}")
        assert told in run_line(chat, line).text
        chat.connection.close()
