"""Headers of checkpoints that are elsewhere, from a server that counts what it gives."""

import contextlib
import http.server
import json
import struct
import threading
from urllib.parse import unquote

import pytest

from lacewing import hub
from lacewing.errors import DownloadError, ModelFormatError
from lacewing.formats import open_checkpoint
from lacewing.hub.huggingface import RemoteFile
from lacewing.hub.remote import fetch_headers
from lacewing.models import open_model
from lacewing.options import LoadOptions
from lacewing.placement.info import ModelInfo
from lacewing.placement.place import place
from tests import sparse_files
from tests.checkpoints import tiny


class Handler(http.server.BaseHTTPRequestHandler):
    ranges = True
    root = None
    given: int
    tokens: set[str | None]
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        type(self).tokens.add(self.headers.get("Authorization"))
        path = self.root / unquote(self.path.partition("?")[0].lstrip("/"))
        if not path.is_file():
            self.send_error(404)
            return
        size, wanted = path.stat().st_size, self.headers["Range"] if self.ranges else None
        first, last = wanted.removeprefix("bytes=").split("-") if wanted else (0, size - 1)
        first, last = int(first), min(int(last), size - 1)
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        with path.open("rb") as file:
            file.seek(first)
            try:
                while (block := file.read(min(2**16, last + 1 - first))) and self.wfile.write(block):
                    type(self).given += len(block)
                    first += len(block)
            except OSError:  # the client has had enough
                self.close_connection = True

    def log_message(self, *args): ...


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    root = tmp_path / "there"
    root.mkdir()
    handler = type("Fresh", (Handler,), {"given": 0, "root": root, "tokens": set()})
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    handler.url = f"http://127.0.0.1:{httpd.server_port}"
    yield handler
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture
def here(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


def described(path):
    info = ModelInfo(path, LoadOptions(context=64), whole=False)
    facts = info.describe(place(info, tell=True).plan)
    return {name: facts[name] for name in ("parameters", "active_parameters", "bytes", "quants", "active_bytes", "tokenizer")}


def sizes(path):
    return open_model(open_checkpoint(path, whole=False), 64).sizes


def test_a_split_file_of_63_gigabytes(server, here):
    path = sparse_files.write("gpt-oss-120b", "gguf", server.root)
    found = fetch_headers(f"{server.url}/{path.name}", here)
    assert sizes(found) == sizes(path)
    assert len(list(here.iterdir())) == 2 and server.given < 20e6
    partial = open_checkpoint(found, whole=False)
    assert partial.missing_bytes == pytest.approx(partial.nbytes, rel=1e-3)
    with pytest.raises(ModelFormatError, match="the file is truncated"):
        open_checkpoint(found)


@pytest.mark.parametrize("name", ["llama", "mixtral"])
@pytest.mark.parametrize("whole", [True, False])
def test_small_ones(server, here, name, whole):
    """Rope factors are the one thing that a config needs of the weights: for sizes they do not matter."""
    server.ranges = whole
    path = tiny("llama-llama3" if name == "llama" else name, "gguf", server.root)
    assert described(fetch_headers(f"{server.url}/{path.name}?download=true", here)) == described(path)


@pytest.mark.parametrize("ending", ["", "/", "/model.safetensors"])
def test_a_directory(server, here, ending):
    path = tiny("deepseek3", "huggingface", server.root)
    assert described(fetch_headers(f"{server.url}/{path.name}{ending}", here)) == described(path)


@pytest.mark.parametrize("ending", ["", "/", "/model.safetensors"])
@pytest.mark.parametrize("form", ["gguf", "huggingface"])
def test_a_url_is_fetched_whole(server, cache, form, ending):
    path = tiny("llama", form, server.root)
    url = f"{server.url}/{path.name}{ending if form == 'huggingface' else '?download=true'}"
    found = hub.path_of(url)
    assert found.is_relative_to(cache) and described(found) == described(path)
    assert hub.find(url).source == url and [one.name for one in hub.list_models()] == [url]
    given = server.given
    assert hub.path_of(url) == hub.resolve(url) == found and server.given <= given + 1  # a byte, to ask for the version
    assert hub.remove(url) > 0 and hub.find(url) is None
    long = f"{url}{'&' if '?' in url else '?'}signature={'x' * 999}"
    assert described(hub.path_of(long)) == described(path) and hub.resolve(long) != found


def test_room_for_a_url_is_looked_for_first(server, cache, monkeypatch):
    from lacewing.hub import download

    path = sparse_files.write("gpt-oss-120b", "gguf", server.root)
    usage = download.shutil.disk_usage("/")
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: usage._replace(free=40 << 30))
    with pytest.raises(DownloadError, match=r"gguf needs 5\d\.\d GiB on the disk of .*, which has 40\.0 GiB free"):
        hub.path_of(f"{server.url}/{path.name}")  # in two files, either of which fits
    assert server.given < 20e6


def test_a_url_of_no_model_is_not_fetched(server, cache):
    (server.root / "page.gguf").write_bytes(b"<html>" + bytes(4 << 20))
    for url in (f"{server.url}/page.gguf", f"{server.url}/nothing.gguf", f"{server.url}/", "https://[1/x.gguf"):
        with pytest.raises((DownloadError, ModelFormatError)):
            hub.path_of(url)
        assert hub.find(url) is None
    assert server.given < 2**21


def test_a_directory_of_many_files(server, here):
    path = sparse_files.write("gpt-oss-20b", "huggingface", server.root)
    assert sizes(fetch_headers(f"{server.url}/{path.name}/", here)) == sizes(path)
    assert server.given < 15e6  # of 14 GB; most is tokenizer.json


def test_a_model_of_the_hub(server, here):
    path = tiny("mixtral", "huggingface", server.root)

    class FakeHub:
        def files(self, repo):
            assert repo == "owner/repo"
            return [RemoteFile(file.name, file.stat().st_size) for file in path.iterdir()]

        def address(self, repo, name):
            return f"{server.url}/{path.name}/{name}", "secret"

    assert described(fetch_headers("hf:owner/repo", here, FakeHub())) == described(path)
    assert server.tokens == {"Bearer secret"}


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("none.gguf", "404"),
        ("folder", "has no config.json"),
        ("%2e%2e.gguf", "cannot be the name"),
        ("page.gguf", "GGUF"),
        ("m-00001-of-00000.gguf", "404"),
    ],
)
def test_what_is_not_there(server, here, address, message):
    (server.root / "page.gguf").write_text("<!DOCTYPE html>" + "x" * 5000)
    with pytest.raises((DownloadError, ModelFormatError), match=message):
        open_checkpoint(fetch_headers(f"{server.url}/{address}", here), whole=False)


def test_a_hostile_index(server, here):
    path = tiny("mixtral", "huggingface", server.root)
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../evil.safetensors"}}))
    with pytest.raises(ModelFormatError, match=r"not the name of a \.safetensors file"):
        fetch_headers(f"{server.url}/{path.name}/", here)
    assert {file.parent for file in here.rglob("*")} == {here}


ANSWERS = {
    "file": ("302 Found", {"Location": "file:///etc/passwd"}, "file:///etc/passwd"),
    "ftp": ("302 Found", {"Location": "ftp://127.0.0.1:1/x.gguf"}, "not http or https"),
    "nowhere": ("302 Found", {"Location": "http://[::1/x.gguf"}, "cannot fetch"),
    "again": ("302 Found", {"Location": "/again.gguf"}, "infinite loop"),
    "odd": ("200 OK", {"Content-Length": "\u00b2"}, "neither ranges nor sizes"),
    "negative": ("200 OK", {"Content-Length": "-4"}, "neither ranges nor sizes"),
    "long": ("200 OK", {"Content-Length": "9" * 5000}, "neither ranges nor sizes"),
    "endless": ("206 Partial", {"Content-Range": "bytes 0-9/" + "9" * 5000}, "neither ranges nor sizes"),
    "elsewhere": ("206 Partial", {"Content-Range": "bytes 7-9/100"}, "neither ranges nor sizes"),
    "short": ("200 OK", {"Content-Length": "100"}, "ended after 4 of 100 bytes"),
    "nothing": ("200 OK", {"Content-Length": "0"}, "ended after 0 of 0 bytes"),
    "babble": ("", {}, "cannot fetch"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_hostile_answers(server, here, name):
    status, headers, message = ANSWERS[name]

    def answer(handler):
        lines = [f"HTTP/1.1 {status}", *(f"{key}: {value}" for key, value in headers.items()), "", "GGUF"]
        handler.wfile.write("\r\n".join(lines).encode("latin-1"))
        handler.close_connection = True

    server.do_GET = answer
    with pytest.raises(DownloadError, match=message):
        fetch_headers(f"{server.url}/{name}.gguf", here)


def test_a_file_that_shrinks_meanwhile_is_not_read_without_end(server, here):
    start = b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + struct.pack("<Q", 2**19)
    given = []

    def answer(handler):
        first = int(handler.headers["Range"].removeprefix("bytes=").split("-")[0])
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {first}-{first + 9}/{5 if first else 10**9}")
        handler.end_headers()
        handler.close_connection = True
        with contextlib.suppress(OSError):
            while len(given) < 2**6:
                handler.wfile.write((start + bytes(2**18))[: 2**18])
                given.append(first)

    server.do_GET = answer
    with pytest.raises(DownloadError, match="had 1000000000 bytes and now has 5"):
        fetch_headers(f"{server.url}/model.gguf", here)


def test_a_server_that_sends_a_few_bytes_an_answer_is_given_up(server, here):
    asked = []

    def answer(handler):
        first = int(handler.headers["Range"].removeprefix("bytes=").split("-")[0])
        asked.append(first)
        assert len(asked) < 500, "asked without end"
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {first}-{first + 9}/{10**9}")
        handler.send_header("Content-Length", "10")
        handler.end_headers()
        handler.wfile.write(b"GGUF" + bytes(6))

    server.do_GET = answer
    with pytest.raises(DownloadError, match="ended after 650 of 1000000000 bytes"):
        fetch_headers(f"{server.url}/model.gguf", here)


@pytest.mark.parametrize("address", ["http://[::1/x.gguf", "http://[::1/", "http://a..b/x.gguf", "http://127.0.0.1:abc/x.gguf",
                                     f"http://{'a' * 300}/x.gguf"])  # fmt: skip
def test_addresses_that_are_none(here, address):
    with pytest.raises(DownloadError):
        fetch_headers(address, here)


def test_a_file_that_is_still_being_fetched(tmp_path):
    for form in ("gguf", "huggingface"):
        path = tiny("mixtral", form, tmp_path)
        file, before = path / "model.safetensors" if form == "huggingface" else path, described(path)
        data = file.read_bytes()
        file.write_bytes(data[:-100_000])
        assert described(path) == before
        assert open_checkpoint(path, whole=False).missing_bytes == pytest.approx(100_000, abs=64)
        with pytest.raises(ModelFormatError, match="truncated"):
            open_model(open_checkpoint(path))
        file.write_bytes(data[:100])
        with pytest.raises(ModelFormatError, match=r"truncated|bytes follow"):
            open_checkpoint(path, whole=False)
