"""Fetching a model while the server runs."""

from __future__ import annotations

import gc
import threading
import time

import ollama
import pytest

from lacewing.errors import DownloadError
from lacewing.options import LoadOptions
from lacewing.server.models import downloads
from tests.server.serving import administered


@pytest.fixture
def serving(tiny_path):
    """Nobody else's server, which other tests would find with one more model."""
    with administered(tiny_path, load=LoadOptions(context=256, backend="reference", sequences=2)) as (url, _):
        client = ollama.Client(host=url, timeout=60)
        yield client
        client._client.close()


def test_progress_comes_and_the_model_is_served(serving, smollm2_path, monkeypatch):
    fetch = downloads.hub.path_of

    def slowly(name, progress):
        for done in (10, 100):
            time.sleep(0.5)  # the first line has been read, and reports come one by one
            progress("fetching the file", done, 100)
        return fetch(name, progress)

    monkeypatch.setattr(downloads.hub, "path_of", slowly)
    found = list(serving.pull("smollm2:latest", stream=True))
    assert [each.status for each in found] == ["pulling manifest", "fetching the file", "fetching the file", "success"]
    assert (found[1].completed, found[1].total) == (10, 100) and found[1].digest == found[2].digest
    assert "smollm2:latest" in [each.model for each in serving.list().models]
    assert serving.generate("smollm2", "Hi", options={"num_predict": 2}).eval_count == 2


def test_two_that_ask_wait_for_one(serving, monkeypatch):
    calls, release = [], threading.Event()

    def slowly(name, progress):
        calls.append(name)
        release.wait(30)
        raise DownloadError("the network is gone")

    monkeypatch.setattr(downloads.hub, "path_of", slowly)
    errors = []

    def pull() -> None:
        try:
            list(serving.pull("smollm2", stream=True))
        except ollama.ResponseError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=pull) for _ in range(2)]
    for thread in threads:
        thread.start()
    while not calls:
        pass
    release.set()
    for thread in threads:
        thread.join()
    assert len(errors) == 2 and all("network is gone" in error for error in errors) and len(calls) <= 2
    with pytest.raises(ollama.ResponseError, match="network is gone"):
        serving.pull("smollm2")


def test_a_fault_that_is_none_of_ours_is_told(serving, monkeypatch, caplog):
    def full(name, progress):
        time.sleep(0.2)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(downloads.hub, "path_of", full)
    with pytest.raises(ollama.ResponseError, match="internal error"):
        list(serving.pull("smollm2", stream=True))
    with pytest.raises(ollama.ResponseError, match="internal error"):
        serving.pull("smollm2")
    assert any("No space left on device" in getattr(record, "problem", "") for record in caplog.records)


def test_one_who_leaves_leaves_nothing_behind(serving, monkeypatch, caplog):
    begun, release = threading.Event(), threading.Event()

    def slowly(name, progress):
        begun.set()
        release.wait(30)
        raise DownloadError("the network is gone")

    monkeypatch.setattr(downloads.hub, "path_of", slowly)
    lines = serving.pull("smollm2", stream=True)
    next(lines)
    assert begun.wait(30)
    lines.close()
    time.sleep(0.5)  # the server sees it
    release.set()
    time.sleep(0.2)
    gc.collect()
    assert "was destroyed but it is pending" not in caplog.text
