"""A server on this machine that speaks the hub's API, and an index's; it counts what it is asked, and misbehaves on request."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from urllib.parse import unquote


class Server:
    """Files by path. `answers`: paths that a function answers, with the handler. `asked`: (path, Range) of each request."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.kinds: dict[str, str] = {}
        self.answers: dict[str, Callable[[http.server.BaseHTTPRequestHandler], None]] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.tokens: dict[str, str | None] = {}
        self.pace: Callable[[], object] | None = None  # called after each block
        self.ranges = True
        self.sent = 0
        self.stopped = threading.Event()

    def repository(self, repo: str, files: dict[str, bytes], xet: bool = False) -> None:
        """Put a repository there; with `xet` its files are redirected to another host, as the hub does."""
        siblings = []
        for name, data in files.items():
            large, path = name.endswith((".gguf", ".safetensors")), f"/{repo}/resolve/main/{name}"
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            lfs = {"lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}} if large else {}
            siblings.append({"rfilename": name, "size": len(data), "blobId": blob, **lfs})
            if xet and large:
                self.files[f"/cas/{name}"], self.answers[path] = data, self.to_xet(f"/cas/{name}")
            else:
                self.files[path] = data
        self.files[f"/api/models/{repo}"] = json.dumps({"id": repo, "sha": "0" * 40, "siblings": siblings}).encode()

    def to_xet(self, path: str) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
        def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
            handler.send_response(302)
            handler.send_header("Location", f"http://localhost:{self.port}{path}")
            handler.send_header("X-Xet-Hash", "0" * 64)
            handler.send_header("X-Linked-Etag", '"0"')
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        return answer

    port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def handle(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        path = unquote(handler.path.partition("?")[0])
        self.asked.append((path, handler.headers.get("Range")))
        self.tokens[path] = handler.headers.get("Authorization")
        if path in self.answers:
            return self.answers[path](handler)
        if path not in self.files:
            return handler.send_error(404)
        data, etag = self.files[path], self.etags.get(path, f'"{hashlib.md5(self.files[path]).hexdigest()}"')
        start, fresh = 0, self.ranges and handler.headers.get("If-Range") in (None, etag)
        if handler.headers.get("Range") and fresh:
            start = int(handler.headers["Range"].removeprefix("bytes=").partition("-")[0])
            if start >= len(data):
                return handler.send_error(416)
        handler.send_response(206 if handler.headers.get("Range") and fresh else 200)
        if handler.headers.get("Range") and fresh:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.send_header("ETag", etag)
        handler.send_header("X-Repo-Commit", "0" * 40)
        handler.send_header("Content-Type", self.kinds.get(path, "application/octet-stream"))
        handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        for at in range(start, len(data), 1 << 16):
            handler.wfile.write(data[at : at + (1 << 16)])
            self.sent += len(data[at : at + (1 << 16)])
            if self.pace is not None:
                self.pace()


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    server = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(OSError):  # the client has had enough
                server.handle(self)

        def log_message(self, *args: object) -> None: ...

    httpd = http.server.ThreadingHTTPServer(("", 0), Handler)
    httpd.daemon_threads = True
    httpd.handle_error = lambda *args: None  # type: ignore[method-assign]
    server.port = httpd.server_port
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.stopped.set()
        httpd.shutdown()
        thread.join()
        httpd.server_close()
