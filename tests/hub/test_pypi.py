"""The package index client against a server on this machine."""

import hashlib
import json
import re
import zipfile

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lacewing.errors import DownloadError, LacewingError
from lacewing.hub import http, pypi
from lacewing.hub.http import Answer

WHEEL = b"PK wheel"
SHA = hashlib.sha256(WHEEL).hexdigest()
JSON = "application/vnd.pypi.simple.v1+json"
NAMES = ("some_model-0.9-py3-none-any.whl", "some_model-0.10-py3-none-any.whl", "some_model-0.11.tar.gz",
         "some_model-1.0-cp311-cp311-linux_x86_64.whl", "some_model-2.0a1-py3-none-any.whl")  # fmt: skip


def entry(name, **changes):
    return {"filename": name, "url": f"../../files/{name}", "size": len(WHEEL), "hashes": {"sha256": SHA}} | changes


def listing(*names):
    return json.dumps({"files": [entry(name) for name in names]}).encode()


PAGE = "<!DOCTYPE html><html><body>" + "".join(
    f'<a href="../../files/{name}#sha256={SHA}" data-requires-python="&gt;=3.8">{name}</a><br/>\n' for name in NAMES
)


@pytest.fixture
def index(there, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", f"{there.url}/simple/")
    monkeypatch.setattr(pypi, "_with_pip", lambda package, version, folder, reason: reason)
    there.files |= {f"/files/{name}": WHEEL for name in NAMES}
    return pypi.PackageIndex()


def put(there, body, kind=JSON, package="some-model"):
    path = f"/simple/{package}/"
    there.files[path], there.kinds[path] = body, kind


@pytest.mark.parametrize("kind, body", [(JSON, listing(*NAMES)), ("text/html", PAGE.encode())])
@pytest.mark.parametrize("package", ["some-model", "Some_Model"])
@pytest.mark.parametrize("version, name", [(None, NAMES[1]), ("0.9", NAMES[0])])
def test_newest_or_pinned_universal_wheel(index, there, tmp_path, package, version, name, kind, body):
    put(there, body, kind)
    path = index.wheel(package, version, tmp_path, None)
    assert path == tmp_path / name and path.read_bytes() == WHEEL
    assert index.size(package, version) == (len(WHEEL) if kind == JSON else 0)
    assert [path for path, _ in there.asked].count("/simple/some-model/") == 1


@pytest.mark.parametrize(
    "body, version, words",
    [
        (listing(*NAMES), "1.0", "no universal wheel of version 1.0"),
        (PAGE.replace("<a", '<a data-yanked=""').encode(), None, "no universal wheel"),
        (b"[1]", None, "unknown form"),
        (None, None, "404"),
    ],
)
def test_otherwise_pip_is_asked(index, there, tmp_path, body, version, words):
    if body is not None:
        put(there, body, JSON if body[:1] in b"[{" else "text/html")
    reason = index.wheel("some-model", version, tmp_path, None)
    assert isinstance(reason, DownloadError) and words in str(reason)


GOOD = NAMES[1]
HOSTILE = {
    "hashes are a number": json.dumps({"files": [entry(GOOD, hashes=5)]}),
    "sha256 is a number": json.dumps({"files": [entry(GOOD, hashes={"sha256": 5})]}),
    "sha256 is short": json.dumps({"files": [entry(GOOD, hashes={"sha256": "00"})]}),
    "a version of 5,000 digits": json.dumps({"files": [entry(f"some_model-{'9' * 5000}-py3-none-any.whl")]}),
    "a version of 200 digits": json.dumps({"files": [entry(f"some_model-{'9' * 200}-py3-none-any.whl")]}),
    "100,000 brackets": "[" * 100_000,
    "brackets inside": '{"files": ' + "[" * 100_000,
    "NaN": '{"files": [{"filename": "some_model-1.0-py3-none-any.whl", "url": "u", "size": NaN}]}',
    "infinite": json.dumps({"files": [entry(GOOD)]}).replace(str(len(WHEEL)), "1e999"),
    "a huge size": json.dumps({"files": [entry(GOOD)]}).replace(f": {len(WHEEL)}", ": " + "9" * 5000),
    "a negative size": json.dumps({"files": [entry(GOOD, size=-1)]}),
    "a size that is text": json.dumps({"files": [entry(GOOD, size="8")]}),
    "a size that is true": json.dumps({"files": [entry(GOOD, size=True)]}),
    "no url": json.dumps({"files": [entry(GOOD, url=None)]}),
    "a url of a file": json.dumps({"files": [entry(GOOD, url="file:///etc/passwd")]}),
    "a url that is none": json.dumps({"files": [entry(GOOD, url="http://[::1")]}),
    "half a surrogate": '{"files": [{"filename": "some_model-1.0-py3-none-any.whl", "url": "\\ud800"}]}',
    "files are an object": '{"files": {"a": 1}}',
    "names are numbers": json.dumps({"files": [entry(5), entry(None), entry(["x"]), 7, None, []]}),
    "a path as a name": json.dumps({"files": [entry("../../x-1.0-py3-none-any.whl")]}),
    "a huge answer": '{"files": []}' + " " * (9 << 20),
    "not UTF-8": b'{"files": ["\xff"]}',
    "empty": "",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_indexes(index, there, tmp_path, name):
    body = HOSTILE[name]
    put(there, body if isinstance(body, bytes) else body.encode())
    assert isinstance(index.wheel("some-model", None, tmp_path, None), DownloadError)
    assert list(tmp_path.glob("*.whl")) == []


@pytest.mark.parametrize(
    "href", ["file:///etc/passwd", "javascript:1", "http://[::1/x.whl", "\ud800", "&#0;", "x#sha256=5", "x#sha256="]
)
def test_hostile_pages(index, there, tmp_path, href):
    put(there, f'<a href="{href}">{GOOD}</a>'.encode("utf-8", "surrogatepass"), "text/html")
    with pytest.raises(DownloadError):
        raise index.wheel("some-model", None, tmp_path, None)


@pytest.mark.parametrize("piece", ["<a ", "<a href=", '<a href="x', "<a><", "<!--", "<a href='x'>" + "y" * 50, "&#x"])
def test_a_long_hostile_page_takes_no_time(piece):
    page = (piece * (2_000_000 // len(piece))).encode()
    assert pypi._listing(Answer("http://h/", "text/html", page)) in ([], None) or piece.endswith("y")


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["sha256", "url", "x"]), inner, max_size=3),
    max_leaves=4,
)


@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
@given(field=st.sampled_from(["filename", "url", "size", "hashes", "yanked", "x"]), value=TREES, document=st.booleans())
def test_any_value_in_any_field_is_a_wheel_or_an_error(field, value, document):
    text = json.dumps({"files": [entry(GOOD, **{field: value})] if document else value}).encode()
    try:
        wheel = pypi._choose(pypi._listing(Answer("http://h/simple/x/", JSON, text)), "x", None)
    except LacewingError as error:
        assert isinstance(error, DownloadError)
    else:
        assert wheel.url.startswith(("http://", "https://")) and re.fullmatch(r"[\w.-]+\.whl", wheel.name)


@settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))
@given(st.sampled_from([(JSON, listing(*NAMES)), ("text/html", PAGE.encode())]), st.data())
@example((JSON, b"\xef\xbb\xbf{}"), None)
def test_damaged_indexes_are_a_wheel_or_an_error(page, data):
    kind, body = page
    if data is not None:
        for _ in range(data.draw(st.integers(1, 4))):
            at, count = data.draw(st.integers(0, len(body))), data.draw(st.integers(0, 20))
            body = (
                body[:at] + data.draw(st.binary(max_size=6) | st.sampled_from([b"[", b'"', b"{", b"9" * 50])) + body[at + count :]
            )
    try:
        pypi._choose(pypi._listing(Answer("http://h/simple/x/", kind, body)), "x", None)
    except LacewingError as error:
        assert isinstance(error, DownloadError)


def test_redirects_without_end(index, there, tmp_path):
    def answer(handler):
        handler.send_response(302)
        handler.send_header("Location", f"/simple/some-model/?{len(there.asked)}")
        handler.end_headers()

    there.answers["/simple/some-model/"] = answer
    assert "redirect" in str(index.wheel("some-model", None, tmp_path, None)) and len(there.asked) <= 11


@pytest.mark.parametrize("where", ["status", "header", "body", "chunk"])
def test_a_server_that_sends_a_byte_now_and_then(index, there, tmp_path, monkeypatch, where):
    monkeypatch.setattr(http, "PATIENCE", 0.5)
    begin = {"status": "", "header": "HTTP/1.1 200 OK\r\nX: ", "body": f"HTTP/1.1 200 OK\r\nContent-Type: {JSON}\r\n\r\n",
             "chunk": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"}[where]  # fmt: skip

    def answer(handler):
        handler.wfile.write(begin.encode())
        handler.close_connection = True
        for _ in range(100):
            if there.stopped.wait(0.1):
                return
            handler.wfile.write(b"1")

    there.answers["/simple/some-model/"] = answer
    told = str(index.wheel("some-model", None, tmp_path, None))
    assert any(words in told for words in ("no answer within", "too slow", "longer than")), told


PIP = """import pathlib, sys, time
folder = pathlib.Path(sys.argv[sys.argv.index("--dest") + 1])
for number in range(100):
    (folder / str(number)).write_bytes(bytes(1 << 20))
    time.sleep(0.05)
"""


def test_pip_is_stopped_when_it_fills_the_disk(tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text(f"#!{pypi.sys.executable}\n{PIP}")
    program.chmod(0o755)
    (tmp_path / "here").mkdir()
    usage = pypi.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(pypi.sys, "executable", str(program))
    monkeypatch.setattr(pypi.shutil, "disk_usage", lambda folder: usage._replace(free=6 << 20))
    with pytest.raises(DownloadError, match=r"takes more than 3\.0 MiB, half of the free disk"):
        pypi._with_pip("x", None, tmp_path / "here", DownloadError("no index"))
    assert list((tmp_path / "here").iterdir()) == []


def test_without_a_network_one_sentence_says_so(there, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    with pytest.raises(DownloadError, match=r"^cannot reach 127\.0\.0\.1:1; check your connection \([^;]*\)$"):
        pypi.PackageIndex().wheel("some-model", None, tmp_path, None)


def test_a_wheel_that_pip_has_fetched(tmp_path, monkeypatch):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "own_model-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("own_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: own-model\nVersion: 1.0\n")
        archive.writestr("own_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("own_model-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    path = pypi._with_pip("own-model", "1.0", tmp_path, DownloadError("no index"))
    assert path.parent == tmp_path and zipfile.is_zipfile(path)
