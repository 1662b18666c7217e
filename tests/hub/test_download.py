import hashlib
import http.server
import threading

import pytest

from lacewing.errors import DownloadError
from lacewing.hub.download import Wanted, download

BODY = bytes(range(256)) * 4000
SHA = hashlib.sha256(BODY).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    ranges = True
    break_after: int | None = None  # bytes of the first answer
    asked: list[str | None]

    def do_GET(self):
        wanted = self.headers.get("Range")
        type(self).asked.append(wanted)
        if self.path != "/file":
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
        self.send_header("Content-Length", str(len(BODY) - start))
        self.end_headers()
        stop = len(BODY)
        if self.break_after is not None:
            stop, type(self).break_after = start + self.break_after, None
        self.wfile.write(BODY[start:stop])

    def log_message(self, *args): ...


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = type("Fresh", (Handler,), {"asked": []})
    httpd = http.server.HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    handler.url = f"http://127.0.0.1:{httpd.server_port}"
    yield handler
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def get(server, target, **changes):
    known = {"size": len(BODY), "sha256": SHA} | changes
    progress = known.pop("progress", None)
    download(Wanted(f"{server.url}/file", **known), target, "x", progress)


@pytest.mark.parametrize("size", [len(BODY), None])
def test_whole(server, tmp_path, size):
    seen = []
    get(server, tmp_path / "f", size=size, progress=lambda *step: seen.append(step))
    assert (tmp_path / "f").read_bytes() == BODY and [p.name for p in tmp_path.iterdir()] == ["f"]
    assert seen[-1] == ("x", len(BODY), len(BODY))


def test_goes_on_where_it_broke_off(server, tmp_path):
    server.break_after = 300_000
    get(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY
    assert server.asked == [None, "bytes=300000-"]


def test_goes_on_from_an_earlier_try(server, tmp_path):
    (tmp_path / "f.part").write_bytes(BODY[:1000])
    get(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY and server.asked == ["bytes=1000-"]


def test_begins_again_where_ranges_are_unknown(server, tmp_path):
    server.ranges = False
    (tmp_path / "f.part").write_bytes(b"something else")
    get(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY


@pytest.mark.parametrize("start", [b"wrong", b"x" * (len(BODY) + 1), b"x" * len(BODY)])
def test_a_bad_earlier_part_is_found_and_deleted(server, tmp_path, start):
    (tmp_path / "f.part").write_bytes(start)
    try:
        get(server, tmp_path / "f")
    except DownloadError as error:
        assert "damaged" in str(error)
        get(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY


def test_wrong_checksum(server, tmp_path):
    with pytest.raises(DownloadError, match="damaged"):
        get(server, tmp_path / "f", sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url, words", [("/none", "404"), (None, "only http")])
def test_errors_name_the_address(server, tmp_path, url, words):
    address = server.url + url if url else "file:///etc/passwd"
    with pytest.raises(DownloadError, match=words):
        download(Wanted(address), tmp_path / "f", "x", None)


def test_no_server(tmp_path, server):
    with pytest.raises(DownloadError, match=r"cannot reach 127\.0\.0\.1:1; check your connection \(.*refused"):
        download(Wanted("http://127.0.0.1:1/f"), tmp_path / "f", "x", None)
