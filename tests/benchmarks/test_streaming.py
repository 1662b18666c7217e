"""The logic of benchmarks.streaming, on a small model and without a memory group."""

import os

import numpy as np
import pytest
from benchmarks.streaming_side import Job

from benchmarks import groups, routes, streaming, streaming_side
from lacewing.placement import plan
from lacewing.weights.experts import SlotCount, pack
from tests.checkpoints import tiny

EXPERTS, ACTIVE, SLOTS = 32, 4, 10


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    changes = {"num_experts": EXPERTS, "num_experts_per_tok": ACTIVE, "max_position_embeddings": 256}
    return tiny("qwen3moe", "gguf", tmp_path_factory.mktemp("streaming"), "Q8_0", **changes)


def job(path, side, which, **changes):
    return Job(path, side, which, "", 2**30, 8, 100, 600, 1)._replace(**changes)


def test_hits_are_those_of_the_simulator(path, monkeypatch):
    monkeypatch.setattr(plan, "slots_within", lambda layers, room: SlotCount(SLOTS, 2 * ACTIVE, 10**6))
    places = pack.pack_places
    found = streaming_side.run(job(path, "streamed", "kimi", prompt=48))
    assert pack.pack_places is places
    assert found["tokens"] == 100 and found["slots"] == SLOTS
    assert abs(found["hit_rate"] - found["simulated"]) < 0.015
    assert found["generate"] > 0 and found["prompt"] > 0 and found["reads"] > 0
    assert found["reading"] is None  # most reads of answers are the kernels' own
    even = streaming_side.run(job(path, "ahead", "uniform", generate=30))
    assert abs(even["hit_rate"] - even["simulated"]) < 0.05 > abs(even["simulated"] - SLOTS / EXPERTS)
    assert even["hit_rate"] < found["hit_rate"] and even["look_ahead"]


def test_a_run_ends_in_time(path):
    found = streaming_side.run(job(path, "lazy", "model", seconds=0, generate=50))
    assert found["tokens"] <= 2 and "hit_rate" not in found and found["reading"] is not None


def test_traces(tmp_path):
    for which in ("uniform", "olmoe"):
        made = routes.trace(which, 40, 3, 16, 4)
        assert made.shape == (40, 3, 4) and all(len(set(ids)) == 4 for ids in made.reshape(-1, 4).tolist())
    assert routes.misses(made, 16, 4).sum() < routes.misses(routes.trace("uniform", 40, 3, 16, 4), 16, 4).sum()
    assert not routes.misses(made, 16, 16)[39:].any()
    file = tmp_path / "trace.jsonl"
    file.write_text('{"layers": [[1, 2], [3, 4]]}\n{"layers": [[5, 6], [7, 8]]}\n')
    assert routes.trace(str(file), 3, 2, 9, 2).tolist() == [[[1, 2], [3, 4]], [[5, 6], [7, 8]], [[1, 2], [3, 4]]]
    with pytest.raises(SystemExit, match="the model has"):
        routes.trace(str(file), 3, 2, 8, 2)


def test_what_reads_on_demand_allow():
    """A layer waits for whichever takes longer, the experts that are there or the reads, then computes the others."""
    mixture = routes.Mixture(active=4, expert=10.0, trunk=20.0)  # of 10 seconds 2 for each of two layers, and 4 * 1 for experts
    rate = lambda counts, disk: routes.on_demand(np.array(counts), mixture, 10.0, disk)  # noqa: E731
    assert rate([[0, 0]], 1.0) == pytest.approx(1 / 10)
    assert rate([[1, 0]], 100.0) == pytest.approx(1 / 10)
    assert rate([[1, 0]], 1.0) == pytest.approx(1 / (10 - 3 + 10))
    assert rate([[1, 0], [4, 4]], 5.0) == pytest.approx(1 / ((10 + 10 + 16) / 2))


def test_pages_in_the_cache(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(64 * 4096))
    assert groups.cached_bytes(path) > 0
    groups.forget(path)
    assert groups.cached_bytes(path) in (0, 64 * 4096)  # some file systems are nothing but memory
    with path.open("wb") as file:
        file.truncate(2 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))  # a hole
    assert groups.cached_bytes(path) == 0


def one(side, generate, **more):
    common = {
        "prompt": 100.0,
        "bytes": 1e8,
        "reading": 9e8,
        "disk": 1e9,
        "major_faults": 2.0,
        "swap": 0,
        "peak": 2**32,
        "cached": 0,
    }
    return {"round": 0, "side": side, "routes": "uniform", "generate": generate} | common | more


def test_the_table():
    runs = [
        one("eager", 20.0, bytes=0),
        one("lazy", 2.0),
        one("streamed", 8.0, hit_rate=0.5, waited=0.7, simulated=0.51, missing=[[1, 0]], mixture=(4, 1e8, 2e8)),
        one("streamed", 6.0, hit_rate=0.5, waited=0.7, simulated=0.51, missing=[[1, 0]], mixture=(4, 1e8, 2e8), reading=None),
        {"side": "llama.cpp", "routes": "model", "problem": "it was killed for memory"},
    ]
    rows = streaming.summary(runs)
    assert [row["side"] for row in rows] == ["eager", "lazy", "streamed", "llama.cpp"]
    assert rows[2]["generate"] == 7 and rows[2]["range"] == [6, 8] and rows[2]["bound"] == 10
    assert rows[2]["overlap"] == pytest.approx(0.7) and rows[1]["overlap"] == pytest.approx(0.2)
    shown = streaming.table(rows).splitlines()
    assert shown[4] == (
        "| streamed | uniform | 7.00 (6.00 to 8.00) | 100.0 | 95.4 MiB | 50.0% (51.0% simulated) | of 1.00 | 70% of 10.00 | "
        "94% of 7.41 | 0.70 | 2.0 | 0 B | 4.0 GiB |"
    )
    assert "killed for memory" in shown[5] and len({line.count("|") for line in shown}) == 1
    slow = streaming.summary([one("streamed", 5.0, hit_rate=0.5, waited=0.25)])[0]
    assert slow["overlap"] == pytest.approx(max(0.75 / 5, 0.1) * 5)


def test_everything_by_turns(path, tmp_path, capsys):
    """Processes of their own; two sides."""
    words = [
        str(path),
        "--no-group",
        "--rounds",
        "1",
        "--sides",
        "lazy,streamed",
        "--prompt",
        "8",
        "--generate",
        "4",
        "--threads",
        "1",
    ]
    streaming.main([*words, "--json", str(tmp_path / "found.json")])
    assert capsys.readouterr().out.count("| uniform |") == 2 and (tmp_path / "found.json").stat().st_size > 500
    with pytest.raises(SystemExit, match="no side slow"):
        streaming.main([str(path), "--sides", "slow"])
    with pytest.raises(SystemExit, match="--peer"):
        streaming.main([str(path), "--sides", "llama.cpp"])


def test_drawing_at_temperature_one():
    rng = np.random.default_rng(0)
    logits = np.log(np.array([0.7, 0.2, 0.1], np.float32))
    counts = np.bincount([streaming_side.draw(logits, rng) for _ in range(2000)], minlength=3)
    np.testing.assert_allclose(counts / 2000, [0.7, 0.2, 0.1], atol=0.04)
