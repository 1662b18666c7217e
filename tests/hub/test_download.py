import hashlib

import pytest

from lacewing.errors import DownloadError
from lacewing.hub.download import Wanted, download

BODY = bytes(range(256)) * 4000
SHA = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server(there):
    there.files["/file"] = BODY
    return there


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


@pytest.mark.parametrize("known", [{}, {"size": None, "sha256": None}])
def test_goes_on_where_it_broke_off(server, tmp_path, known):
    def pace():
        if server.sent == 5 << 16:
            server.pace = None
            raise ConnectionError

    server.pace = pace
    get(server, tmp_path / "f", **known)
    assert (tmp_path / "f").read_bytes() == BODY
    assert server.asked == [("/file", None), ("/file", "bytes=327680-")]


def test_a_server_that_sends_a_byte_at_a_time_is_given_up(server, tmp_path, monkeypatch):
    def answer(handler):
        start = int((handler.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        assert start < 50, "asked without end"
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
        handler.send_header("Content-Length", str(len(BODY) - start))
        handler.end_headers()
        handler.wfile.write(BODY[start : start + 1])

    server.answers["/file"] = answer
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(DownloadError, match="run the same command to continue"):
        get(server, tmp_path / "f")
    assert len(server.asked) < 10 and (tmp_path / "f.part").exists()


def test_goes_on_from_an_earlier_try(server, tmp_path):
    (tmp_path / "f.part").write_bytes(BODY[:1000])
    get(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY and server.asked == [("/file", "bytes=1000-")]


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
