"""The package index client against a server on this machine."""

import hashlib
import http.server
import json
import threading
import tracemalloc
import zipfile

import pytest

from lacewing.errors import DownloadError
from lacewing.hub import pypi

WHEEL = b"PK wheel"


def listing(*names):
    files = [
        {"filename": n, "url": f"../../files/{n}", "size": len(WHEEL), "hashes": {"sha256": hashlib.sha256(WHEEL).hexdigest()}}
        for n in names
    ]
    return json.dumps({"files": files}).encode()


PAGES = {
    "/simple/some-model/": ("application/vnd.pypi.simple.v1+json", listing(
        "some_model-0.9-py3-none-any.whl", "some_model-0.10-py3-none-any.whl", "some_model-0.11.tar.gz",
        "some_model-1.0-cp311-cp311-linux_x86_64.whl", "some_model-2.0a1-py3-none-any.whl")),
    "/simple/html/": ("text/html", b"<a href='x'>"),
    "/simple/odd/": ("application/vnd.pypi.simple.v1+json", b"[1]"),
}  # fmt: skip


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        kind, body = PAGES.get(self.path, ("", WHEEL) if self.path.startswith("/files/") else ("", None))
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args): ...


@pytest.fixture
def index(monkeypatch):
    httpd = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{httpd.server_port}/simple/")
    monkeypatch.setattr(pypi, "_with_pip", lambda package, version, folder, reason: reason)
    yield pypi.PackageIndex()
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.mark.parametrize("package", ["some-model", "Some_Model"])
@pytest.mark.parametrize("version, name", [(None, "some_model-0.10-py3-none-any.whl"), ("0.9", "some_model-0.9-py3-none-any.whl")])
def test_newest_or_pinned_universal_wheel(index, tmp_path, package, version, name):
    path = index.wheel(package, version, tmp_path, None)
    assert path == tmp_path / name and path.read_bytes() == WHEEL


@pytest.mark.parametrize(
    "package, version, words",
    [
        ("some-model", "1.0", "no universal wheel of version 1.0"),
        ("html", None, "JSON"),
        ("odd", None, "unknown form"),
        ("none", None, "404"),
    ],
)
def test_otherwise_pip_is_asked(index, tmp_path, package, version, words):
    reason = index.wheel(package, version, tmp_path, None)
    assert isinstance(reason, DownloadError) and words in str(reason)


def test_a_member_that_unpacks_to_a_lot_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("bomb-1.dist-info/METADATA", "bomb/SHA256SUMS"):
            archive.writestr(name, bytes(2**25))
    tracemalloc.start()
    assert pypi._part_packages(path, "bomb") == [] and pypi._sums([path]) == {}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24
