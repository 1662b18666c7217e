"""Anything that names a model, to the path to open; URLs among it, and the hub's API with what may come from it."""

import json
import struct
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lacewing import hub
from lacewing.errors import Cancelled, DownloadError, LacewingError
from lacewing.hub import huggingface, path_of, pull
from lacewing.hub.http import Answer, Unreachable
from lacewing.hub.huggingface import Hub
from lacewing.hub.pull import Transports


def gguf(tail):
    """A GGUF file without keys and tensors."""
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 0) + tail


def test_a_url_is_fetched_once_and_again_when_it_changes(there, cache):
    there.files["/d/m.gguf"] = gguf(b"one")
    url, told = f"{there.url}/d/m.gguf?download=true", []
    path = path_of(url, lambda *step: told.append(step))
    assert path.read_bytes() == gguf(b"one") and path.name == "m.gguf" and path.is_relative_to(cache)
    assert ("fetching m.gguf", 27, 27) in told
    there.asked.clear()
    assert path_of(url) == path and there.asked == [("/d/m.gguf", "bytes=0-0")]
    there.files["/d/m.gguf"] = gguf(b"two")
    assert path_of(url).read_bytes() == gguf(b"two")
    assert [cached.name for cached in hub.list_models()] == [url] and hub.resolve(url) == path
    del there.files["/d/m.gguf"]
    assert path_of(url).read_bytes() == gguf(b"two")  # what is here is used when the server does not answer
    assert hub.remove(url) >= 27
    with pytest.raises(DownloadError, match="404"):
        path_of(url)


def test_a_server_that_hangs_is_not_waited_for_when_the_file_is_here(there, monkeypatch):
    there.files["/m.gguf"] = gguf(b"here")
    path = path_of(f"{there.url}/m.gguf")
    monkeypatch.setattr(pull, "_GLANCE", 0.2)
    there.answers["/m.gguf"] = lambda handler: there.stopped.wait(20)
    begin = time.monotonic()
    assert path_of(f"{there.url}/m.gguf") == path and time.monotonic() - begin < 10


def test_finished_parts_of_a_url_are_kept(there):
    names = [f"m-0000{number}-of-00002.gguf" for number in (1, 2)]
    there.files |= {f"/{name}": gguf(name.encode()) for name in names}
    url, cut = f"{there.url}/{names[0]}", [names[1]]

    def progress(what, done, total):
        if what == f"fetching {cut[0]}":
            raise Cancelled("given up")

    with pytest.raises(Cancelled):
        path_of(url, progress)
    [partial] = hub.list_partial()
    assert partial.name == url and partial.nbytes >= 24
    cut[0], told = "", []
    path = path_of(url, lambda what, *rest: told.append(what))
    assert path.name == names[0] and f"fetching {names[0]}" not in told
    assert [(path.parent / name).read_bytes() for name in names] == [gguf(name.encode()) for name in names]
    hub.remove(url)
    cut[0] = names[1]
    with pytest.raises(Cancelled):
        path_of(url, progress)
    there.files |= {f"/{name}": gguf(b"NEW" + name.encode()) for name in names}  # another version
    assert path_of(url).read_bytes() == gguf(b"NEW" + names[0].encode())


@pytest.mark.parametrize("path", ["x.bin", "", "%2e%2e.gguf", "a/b%2fc.gguf", "page.gguf", "none.gguf"])
def test_urls_that_are_no_model(there, cache, path):
    there.files["/page.gguf"], there.kinds["/page.gguf"] = b"<html>", "text/html; charset=utf-8"
    with pytest.raises(LacewingError):
        path_of(f"{there.url}/{path}")
    assert hub.list_models() == [] and hub.list_partial() == []


def test_a_browsers_address_of_the_hub_leads_to_the_file():
    url = "https://huggingface.co/o/r/blob/main/m.gguf"
    assert pull.parse_source(url)[0].target == "https://huggingface.co/o/r/resolve/main/m.gguf"


def test_paths_and_names(there, tmp_path, monkeypatch):
    file = tmp_path / "x.gguf"
    file.write_bytes(b"")
    assert path_of(str(file)) == file
    there.repository("o/r", {"m.gguf": b"GGUF"})
    monkeypatch.setattr(pull, "Transports", lambda: Transports(Hub(there.url)))
    assert path_of("hf:o/r").read_bytes() == b"GGUF"
    there.asked.clear()
    assert path_of("hf:o/r").read_bytes() == b"GGUF" and there.asked == []
    with pytest.raises(DownloadError, match="known names are smollm2"):
        path_of("nonsense")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hf:o").mkdir()
    (tmp_path / "hf:o" / "r").write_bytes(b"mine")
    assert path_of("hf:o/r").read_bytes() == b"mine"  # a path that exists wins


def test_a_person_can_give_up(there):
    there.files["/m.gguf"] = gguf(bytes(1 << 20))

    def progress(what, done, total):
        raise Cancelled("given up")

    with pytest.raises(Cancelled):
        path_of(f"{there.url}/m.gguf", progress)


def test_the_hub_cannot_be_reached(there):
    with pytest.raises(Unreachable, match=r"^cannot reach the hub; check your connection$"):
        Hub("http://127.0.0.1:1").files("o/r")


@pytest.mark.parametrize(
    "status, words", [(404, "has no repository o/r"), (401, "it is private.*HF_TOKEN"), (403, "accept its terms"), (500, "500")]
)
def test_what_the_hubs_refusals_mean(there, status, words):
    there.answers["/api/models/o/r"] = lambda handler: handler.send_error(status)
    with pytest.raises(DownloadError, match=words):
        Hub(there.url).files("o/r")


def test_a_renamed_repository_keeps_the_token(there, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    there.repository("new/r", {"m.gguf": b"GGUF"})

    def moved(handler):
        handler.send_response(307)
        handler.send_header("Location", "/api/models/new/r")
        handler.end_headers()

    there.answers["/api/models/o/r"] = moved
    assert [file.name for file in Hub(there.url).files("o/r")] == ["m.gguf"]
    assert there.tokens["/api/models/new/r"] == "Bearer secret"


def test_offline_is_obeyed(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE is set"):
        Hub().files("o/r")


LISTING = json.dumps({"siblings": [{"rfilename": "m.gguf", "size": 4, "blobId": "0" * 40, "lfs": {"sha256": "0" * 64}}]}).encode()


@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_damaged_listings_of_the_hub_are_files_or_an_error(data):
    body = LISTING
    for _ in range(data.draw(st.integers(1, 4))):
        at, count = data.draw(st.integers(0, len(body))), data.draw(st.integers(0, 12))
        body = (
            body[:at]
            + data.draw(st.binary(max_size=6) | st.sampled_from([b"[", b"5", b"null", b"true", b"9" * 30]))
            + body[at + count :]
        )
    hub_of = Hub("http://h")
    hub_of._ask = lambda path, repo: Answer("http://h", "", body).json()  # type: ignore[method-assign]
    try:
        files = huggingface.choose(hub_of.files("o/r"), "o/r", None)
    except LacewingError as error:
        assert isinstance(error, DownloadError)
    else:
        assert all(file.size is None or file.size >= 0 for file in files)


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b"[]", b"5", b'{"siblings": 5}', b'{"siblings": [5, null]}', b"NaN", b"", b"\xff"]
)
def test_hostile_listings_of_the_hub(there, body):
    there.files["/api/models/o/r"] = body
    with pytest.raises(DownloadError):
        huggingface.choose(Hub(there.url).files("o/r"), "o/r", None)
