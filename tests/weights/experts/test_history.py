"""The usage of experts from one session to the next: what is kept, what fills the slots, and what is not believed."""

import json
import os
import stat
import threading
import time

import numpy as np
import pytest

import lacewing
from lacewing.formats.read import identity
from lacewing.weights.experts import ExpertCache, SlotCount, history
from lacewing.weights.experts.cache import StreamOptions
from lacewing.weights.experts.history import History, model_key
from tests.checkpoints import tiny
from tests.weights.experts.test_cache import BYTES, EXPERTS, SlowReader, Stack, check_bytes, fetch

LAYERS = [np.array([0, 3.5, 7]), np.array([1, 0])]


def test_what_is_written_is_read(tmp_path):
    kept = History(tmp_path / "new", "abc" * 20)
    assert kept.read([3, 2]) is None and not kept.problem  # there is none
    kept.write(LAYERS)
    found = History(tmp_path / "new", "abc" * 20).read([3, 2])
    assert all(np.array_equal(*each) for each in zip(found, LAYERS, strict=True))
    assert [each.name for each in (tmp_path / "new").iterdir()] == [kept.path.name]  # nothing half-written


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\x00", "Expecting value"),
        (b"[" * 100_000, ""),
        (b"[1, 2]", "another model"),
        ({"model": "other"}, "another model"),
        ({"layers": None}, ""),
        ({"layers": [[1, 2, 3]]}, "other layers"),
        ({"layers": [[1, 2, 3], [[1], [2]]]}, "other layers"),
        ({"layers": [[1, 2, 3], [1, -1]]}, "no counts"),
        ({"layers": [[1, 2, float("nan")], [1, 1]]}, "no counts"),
        ({"layers": [[1, 2, 1e300], [1, 1]]}, "no counts"),
        ({"layers": [[1, 2, "x"], [1, 1]]}, "convert"),
    ],
)
def test_a_file_that_is_damaged_or_foreign(tmp_path, content, reason):
    kept = History(tmp_path, "abc" * 20)
    kept.path.write_bytes(content if isinstance(content, bytes) else json.dumps({"model": "abc" * 20} | content).encode())
    assert kept.read([3, 2]) is None
    assert str(kept.path) in kept.problem and "ignored" in kept.problem and reason in kept.problem
    kept.write(LAYERS)
    assert History(tmp_path, "abc" * 20).read([3, 2])


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_only_its_person_can_read_it(tmp_path):
    """It tells what somebody asked a model. A file that a killed process left is no way in."""
    folder = tmp_path / "new"
    kept = History(folder, "abc" * 20)
    kept.write(LAYERS)
    assert [stat.S_IMODE(each.stat().st_mode) for each in (folder, kept.path)] == [0o700, 0o600]
    kept.path.chmod(0o644)
    for left in ("part", f"{os.getpid()}.part"):
        kept.path.with_name(f"{kept.path.stem}.{left}").symlink_to(tmp_path / "elsewhere")
    kept.write(LAYERS)
    assert stat.S_IMODE(kept.path.stat().st_mode) == 0o600 and not (tmp_path / "elsewhere").exists()


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    kept = History(tmp_path / "file" / "below", "abc")
    kept.write(LAYERS)
    assert kept.read([3, 2]) is None


@pytest.fixture
def path(tmp_path):
    content = np.random.default_rng(0).integers(0, 256, 2 * EXPERTS * BYTES + 77, np.uint8)
    content.tofile(tmp_path / "experts")
    return tmp_path / "experts"


def made(path, folder, slots=4):
    stacks = {"up": Stack(path, 33, False), "down": Stack(path, 33 + EXPERTS * BYTES, True)}
    return ExpertCache(stacks, [(("up", "down"), 2)], {path: identity(path)}, SlotCount(slots, 4), options=StreamOptions(folder))


def used(path, folder):
    """A session in which 7 was used most, then 2, then 5."""
    cache = made(path, folder)
    for chosen in ([7, 2], [7, 5], [7, 2], [7, 2], [5, 7], [7, 2], [7, 2], [7, 2], [7, 0]):
        fetch(cache.layers[0], sorted(chosen))
    assert cache.warm_start is None
    cache.close()


def resident(layer):
    return np.flatnonzero(layer.addresses["up"]).tolist()


def test_slots_are_filled_by_what_was_used_most(path, tmp_path):
    used(path, tmp_path / "history")
    cache = made(path, tmp_path / "history", slots=3)
    (layer,) = cache.layers
    cache.begin_warm_start()
    assert cache.warm_start.wait(10) and cache.warm_start.planned == 3
    assert resident(layer) == [2, 5, 7]
    for expert in resident(layer):
        check_bytes(layer, np.fromfile(path, np.uint8), expert)
    assert cache.statistics.warmed == 3 and cache.statistics.warmed_bytes == 3 * 2 * BYTES
    assert "3 experts" in str(cache) and "usage history before the first prompt" in str(cache)
    version = layer.begin_run()
    fetch(layer, [2, 7])
    assert layer.begin_run() == version > 0  # whoever computes has to look again, once
    assert cache.statistics.misses == 0
    fetch(layer, [1, 3])
    assert 7 in resident(layer)  # it counts as used
    cache.close()


def test_a_prompt_replaces_what_came_from_the_history_but_not_what_an_answer_uses(path, tmp_path):
    used(path, tmp_path / "history")
    cache = made(path, tmp_path / "history", slots=3)
    (layer,) = cache.layers
    cache.begin_warm_start()
    assert cache.warm_start.wait(10)
    fetch(layer, [2, 7])
    fetch(layer, [0, 1, 3, 4, 6, 8], few=False)
    assert {2, 7} < set(resident(layer)) and 5 not in resident(layer)
    cache.close()


def test_the_first_run_ends_it(path, tmp_path):
    used(path, tmp_path / "history")
    cache = made(path, tmp_path / "history")
    (layer,) = cache.layers
    slow = SlowReader(cache.reader)
    cache.begin_warm_start()
    began = time.perf_counter()
    layer.begin_run()
    assert time.perf_counter() - began < 5 and not cache.warm_start.running  # the reads take 10
    assert resident(layer) == []
    threading.Timer(0.2, slow.go.set).start()
    fetch(layer, [2, 7])
    for expert in (2, 7):
        check_bytes(layer, np.fromfile(path, np.uint8), expert)
    cache.close()


def test_closing_ends_it(path, tmp_path):
    used(path, tmp_path / "history")
    cache = made(path, tmp_path / "history")
    slow = SlowReader(cache.reader)
    cache.begin_warm_start()
    cache.close()
    assert not cache.warm_start.running
    slow.go.set()


def test_a_file_that_is_gone(path, tmp_path):
    used(path, tmp_path / "history")
    cache = made(path, tmp_path / "history")
    os.truncate(path, 100)
    cache.begin_warm_start()
    assert cache.warm_start.wait(10) and resident(cache.layers[0]) == []
    cache.close()


def test_the_key_is_of_the_content(path, tmp_path):
    def key(file):
        stacks = {"up": Stack(file, 33, False), "down": Stack(file, 33 + EXPERTS * BYTES, True)}
        return model_key(stacks, [("up", "down")], {file: identity(file)})

    first = key(path)
    (tmp_path / "copy").write_bytes(path.read_bytes())
    assert key(tmp_path / "copy") == first
    with (tmp_path / "copy").open("r+b") as file:
        file.seek(40)
        file.write(b"another")
    assert key(tmp_path / "copy") != first


def test_models_keep_it_and_can_be_told_not_to(tmp_path, monkeypatch):
    path = tiny("qwen3moe", "gguf", tmp_path, "Q8_0")
    monkeypatch.setattr(history, "history_dir", lambda: tmp_path / "history")

    def logits(**options):
        with lacewing.load(path, backend="cpu", residency="streamed", threads=1, context=64, **options) as model:
            warm, notices = model.weights.experts.warm_start, model.notices
            if warm is not None:
                assert warm.wait(10)
            return [model.logits([1, 2, 3, 4, position])[-1].tobytes() for position in range(12)], warm, notices

    expected, warm, _ = logits(cold_start=True)
    assert warm is None and not (tmp_path / "history").exists()
    assert logits()[1] is None
    (kept,) = (tmp_path / "history").iterdir()
    found, warm, _ = logits()
    assert found == expected and warm.planned > 0
    kept.write_bytes(b"{")
    found, warm, notices = logits()
    assert found == expected and warm is None and any(str(kept) in each for each in notices)
    assert logits()[1].planned > 0


@pytest.mark.parametrize("turn", [0, 1])
def test_a_test_has_no_history_of_those_before(turn, tmp_path):
    path = tiny("qwen3moe", "gguf", tmp_path)
    with lacewing.load(path, backend="cpu", residency="streamed", threads=1, context=64) as model:
        assert model.weights.experts.warm_start is None
        for position in range(10):
            model.logits([1, 2, position])
