"""Transfers that are cut off, and go on in another process."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from lacewing import hub
from lacewing.errors import DownloadError, OptionError
from lacewing.hub import download as downloads
from lacewing.hub.cache import locked, staging_of
from lacewing.hub.download import Wanted, download
from lacewing.hub.huggingface import Hub
from lacewing.hub.pull import Transports, pull

BODY = os.urandom(1 << 16) * 64  # 4 MiB
PULL = "import sys; from lacewing.hub.pull import pull; print(pull(sys.argv[1]).path)"


def start(name, server, **environment):
    place = {"HF_ENDPOINT": server.url, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN": "secret", **environment}
    command = [sys.executable, "-c", PULL, name]
    return subprocess.Popen(command, env={**os.environ, **place}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill_halfway(name, server):
    """A process that is killed after 2 MiB; the bytes that it has kept."""
    halfway = threading.Event()

    def pace():
        if server.sent >= 2 << 20:
            halfway.set()
            time.sleep(0.2)

    server.pace = pace
    process = start(name, server)
    assert halfway.wait(20)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    server.pace, server.sent = None, 0
    return staging_of(name)


@pytest.mark.parametrize("xet", [False, True])
def test_a_killed_download_from_the_hub_goes_on(there, xet):
    there.repository("o/r", {"m.gguf": BODY}, xet)
    staging = kill_halfway("hf:o/r", there)
    kept = (staging / "m.gguf.part").stat().st_size
    assert kept >= 1 << 20
    [partial] = hub.list_partial()
    assert (partial.name, partial.path) == ("hf:o/r", staging) and partial.nbytes >= kept
    process = start("hf:o/r", there)
    told = process.communicate()
    assert process.returncode == 0, told
    assert hub.find("hf:o/r").path.read_bytes() == BODY and there.sent <= len(BODY) - kept + (1 << 20)
    assert hub.list_partial() == []
    assert there.tokens["/o/r/resolve/main/m.gguf"] == "Bearer secret"
    assert there.tokens.get("/cas/m.gguf") is None  # the token is for the hub alone


def test_a_killed_download_begins_again_when_the_file_has_changed(there):
    there.repository("o/r", {"m.gguf": BODY})
    kill_halfway("hf:o/r", there)
    there.repository("o/r", {"m.gguf": BODY[::-1]})
    assert pull("hf:o/r", None, Transports(Hub(there.url))).path.read_bytes() == BODY[::-1]
    assert there.asked[-1] == ("/o/r/resolve/main/m.gguf", None)


def test_a_small_file_of_an_earlier_version_is_fetched_again(there):
    there.repository("o/r", {"model.safetensors": b"w", "config.json": b'{"a": 1}'})
    there.answers["/o/r/resolve/main/model.safetensors"] = lambda handler: handler.send_error(500)
    downloads_folder = staging_of("hf:o/r")
    with pytest.raises(DownloadError, match="500"):
        pull("hf:o/r", None, Transports(Hub(there.url)))
    (downloads_folder / "config.json").write_bytes(b'{"a": 2}')  # of the same size
    there.answers.clear()
    assert (pull("hf:o/r", None, Transports(Hub(there.url))).path / "config.json").read_bytes() == b'{"a": 1}'


def test_another_etag_begins_again(there, tmp_path):
    there.files["/f"] = BODY
    (tmp_path / "f.part").write_bytes(b"old" * 1000)
    (tmp_path / "f.version").write_text('"of old"')
    download(Wanted(f"{there.url}/f"), tmp_path / "f", "x", None)
    assert (tmp_path / "f").read_bytes() == BODY and there.asked == [("/f", "bytes=3000-")]


@pytest.mark.parametrize("etag", ['"strong"', 'W/"weak"'])
def test_the_same_etag_goes_on(there, tmp_path, etag):
    there.files["/f"], there.etags["/f"] = BODY, etag
    (tmp_path / "f.part").write_bytes(BODY[:3000])
    (tmp_path / "f.version").write_text(etag)
    download(Wanted(f"{there.url}/f"), tmp_path / "f", "x", None)
    assert (tmp_path / "f").read_bytes() == BODY and there.sent == len(BODY) - 3000


def test_a_server_that_ignores_if_range_mixes_no_versions(there, tmp_path):
    there.files["/f"] = BODY
    (tmp_path / "f.part").write_bytes(b"old" * 1000)
    (tmp_path / "f.version").write_text('W/"of old"')
    download(Wanted(f"{there.url}/f"), tmp_path / "f", "x", None)
    assert (tmp_path / "f").read_bytes() == BODY and there.asked == [("/f", "bytes=3000-"), ("/f", None)]


def test_without_a_version_nothing_is_continued(there, tmp_path):
    there.files["/f"] = BODY
    (tmp_path / "f.part").write_bytes(b"who knows")
    download(Wanted(f"{there.url}/f"), tmp_path / "f", "x", None)
    assert (tmp_path / "f").read_bytes() == BODY and there.asked == [("/f", None)]


def test_partial_files_are_listed_and_removed(there, cache):
    there.repository("o/r", {"m.gguf": BODY})
    kill_halfway("hf:o/r", there)
    (cache / "partial" / "odd").mkdir()
    (cache / "partial" / "odd" / "x").write_bytes(b"123")  # of an earlier version: nothing tells whose it is
    (cache / "partial" / "empty").mkdir()
    assert [(partial.name, partial.path.name) for partial in hub.list_partial()] == [("hf:o/r", "hf--o--r"), ("odd", "odd")]
    with locked("hf:o/r"), pytest.raises(DownloadError, match="another process is fetching"):
        hub.remove("hf:o/r")
    assert hub.remove("hf:o/r") >= 1 << 20 and hub.remove("odd") == 3
    assert hub.list_partial() == [] and not staging_of("hf:o/r").exists()
    with pytest.raises(OptionError):
        hub.remove("odd")


def test_a_note_that_lies_about_its_name_removes_nothing_else(cache):
    for folder in ("a", "b"):
        (cache / "partial" / folder).mkdir(parents=True)
        (cache / "partial" / folder / "x").write_bytes(b"1")
    (cache / "partial" / "a" / "lacewing.json").write_text('{"name": "../b", "version": ""}')
    assert [partial.name for partial in hub.list_partial()] == ["a", "b"]
    assert hub.remove("a") and (cache / "partial" / "b" / "x").exists()


def full(monkeypatch, free):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda folder: usage._replace(free=free))


def test_room_is_looked_for_first(there, cache, monkeypatch):
    there.repository("o/r", {f"m-0000{i}-of-00002.gguf": BODY for i in (1, 2)})
    full(monkeypatch, 6 << 20)
    with pytest.raises(
        DownloadError, match=r"o/r needs 8\.0 MiB on the disk of .*, which has 6\.0 MiB free; .*LACEWING_CACHE"
    ) as told:
        pull("hf:o/r", None, Transports(Hub(there.url)))
    assert str(cache) in str(told.value) and there.sent < 1 << 20
    full(monkeypatch, 8 << 20)
    assert pull("hf:o/r", None, Transports(Hub(there.url))).nbytes == 8 << 20


def test_room_is_looked_for_when_only_the_answer_tells_the_size(there, tmp_path, monkeypatch):
    there.files["/f"] = BODY
    full(monkeypatch, 1 << 20)
    with pytest.raises(DownloadError, match=r"x needs 4\.0 MiB on the disk"):
        download(Wanted(f"{there.url}/f"), tmp_path / "f", "x", None)


def endless(chunked=True, length=None):
    def answer(handler):
        handler.send_response(200)
        if length is not None:
            handler.send_header("Content-Length", str(length))
        handler.end_headers()
        while True:
            handler.wfile.write(bytes(1 << 16))

    return answer


def test_no_more_is_written_than_announced(there, tmp_path):
    there.answers["/f"] = endless()
    with pytest.raises(DownloadError, match="sends more than 1000 bytes, which is the announced size"):
        download(Wanted(f"{there.url}/f", size=1000), tmp_path / "f", "x", None)
    assert list(tmp_path.iterdir()) == [] and [path for path, _ in there.asked] == ["/f"]


def test_another_length_than_announced_is_refused_at_once(there, tmp_path):
    there.answers["/f"] = endless(length=10**12)
    with pytest.raises(DownloadError, match="has 1000000000000 bytes, but 1000 were announced"):
        download(Wanted(f"{there.url}/f", size=1000), tmp_path / "f", "x", None)


def test_without_a_size_half_of_the_free_disk_is_the_limit(there, tmp_path, monkeypatch):
    there.answers["/f"] = endless()
    full(monkeypatch, 4 << 20)
    with pytest.raises(DownloadError, match="sends more than 2097152 bytes, which is half of the free disk"):
        download(Wanted(f"{there.url}/f"), tmp_path / "f", "x", None)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file(there, tmp_path):
    there.files["/f"] = b""
    assert download(Wanted(f"{there.url}/f", size=0), tmp_path / "f", "x", None) == hashlib.sha256(b"").hexdigest()
