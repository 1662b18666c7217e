"""Servers of others, as far as a test needs one: they take OpenAI's fields alone, and answer what they are told to."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FIELDS = {"model", "messages", "prompt", "stream", "stream_options", "temperature", "top_p", "max_tokens", "stop", "seed"}


def chunk(text: str = "", **more: Any) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": {"content": text} if text else {}, **more}]})


class Foreign:
    """`lines`: the data of the events of the next answer; `broken`: the connection ends behind them. `bodies` are the requests.

    `entries`: what the next lists of models say of its model; `others`: paths besides OpenAI's that it takes, with an empty answer.
    """

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.lines: Sequence[str] = ()
        self.broken = False
        self.entries: Iterator[dict[str, Any]] = iter(())
        self.others: Sequence[str] = ()
        self.status, self.answer = 200, b""
        self.gone = threading.Event()  # the client has left


def _handler(server: Foreign) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path == "/v1/models"
            entry = {"id": "theirs", **next(server.entries, {})}
            self.reply(200 if known else 404, json.dumps({"object": "list", "data": [entry]} if known else {}).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not self.path.startswith("/v1/"):
                return self.reply(200 if self.path in server.others else 404, b"{}")
            server.bodies.append(body)
            if unknown := set(body) - FIELDS:
                message = json.dumps({"error": {"message": f"Unrecognized request argument: {unknown.pop()}", "code": None}})
                self.reply(400, message.encode())
            elif server.status != 200 or server.answer:
                self.reply(server.status, server.answer)
            else:
                self.stream()

        def reply(self, status: int, data: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def stream(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            try:
                for line in server.lines:
                    self.wfile.write(f": a comment\n\ndata: {line}\n\n".encode())
                while server.broken is None:  # never goes on
                    self.wfile.write(b": still here\n\n")
                    threading.Event().wait(0.02)
            except OSError:
                server.gone.set()

        def log_message(self, *args: Any) -> None:
            pass

    return Handler


@contextlib.contextmanager
def foreign() -> Iterator[tuple[str, Foreign]]:
    """Its address, and what it is told to do."""
    server = Foreign()
    listening = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.server_address[1]}", server
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()
