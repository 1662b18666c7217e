"""`lacewing pack`, and what `info` and `bench` tell of packs and of how experts are read."""

import json
import os
import threading
import time

import pytest

from lacewing.cli import bench
from lacewing.weights.experts import pack, probe
from lacewing.weights.experts.reading import ExpertReader
from tests.checkpoints import tiny
from tests.interrupts import pressed


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(pack, "cache_dir", lambda: tmp_path / "cache")  # not by LACEWING_CACHE: compiled kernels are there
    monkeypatch.setattr(probe, "RATE_SECONDS", 0.01)
    monkeypatch.setattr(bench, "_read_bandwidth", lambda _: None)
    return tiny("qwen3moe", "gguf", tmp_path, "Q4_0")


def test_a_pack_is_written_told_of_and_used(lacewing, path, tmp_path):
    streamed = ("--backend", "cpu", "--residency", "streamed", "--context", "64")
    told = json.loads(lacewing("info", path, *streamed, "--json")[1])
    assert told["pack"]["path"] is None and told["pack"]["reads"] == 3 and told["pack"]["disk_rate"] > 0
    assert told["streaming"]["direct"] in (True, False) and told["streaming"]["threads"] > 0
    assert "no pack: `lacewing pack` writes" in lacewing("info", path, *streamed)[1]
    code, out, _ = lacewing("pack", path)
    target = path.with_name(path.name + ".experts")
    assert code == 0 and out.startswith(f"{target}: 16 experts") and "streaming uses it from now on" in out
    assert "is there already" in lacewing("pack", path)[1]
    assert "all as in the model" in lacewing("pack", path, "--verify")[1]
    code, _, told = lacewing("pack", path, "--output", tmp_path / "other.experts")
    assert code == 2 and f"streaming uses {target}, which it looks for first" in told and not (tmp_path / "other.experts").exists()
    told = json.loads(lacewing("info", path, *streamed, "--json")[1])
    assert told["pack"]["path"] == str(target) and told["streaming"]["read_bytes"] == told["pack"]["read_bytes"]
    assert f"pack: {target}" in lacewing("info", path, *streamed)[1]
    report = json.loads(lacewing("bench", path, *streamed, "-p", "4", "-n", "2", "-r", "1", "--json")[1])
    use, ((_, text),) = report["streamed"], bench._held(report)
    assert use["pack"] == str(target) and use["reads"] > 0 and use["threads"] == 4 and use["direct"] in (True, False)
    assert "of a pack" in text
    os.utime(path, (1, 1))
    assert "before it changed" in lacewing("info", path, *streamed)[1]
    code, _, told = lacewing("pack", path, "--verify")
    assert code == 2 and "before it changed" in told
    assert json.loads(lacewing("pack", path, "--output", tmp_path / "other.experts", "--json")[1])["written"] > 0
    assert "is there already" in lacewing("pack", path, "--output", tmp_path / "other.experts")[1]
    assert "cache/packs" in json.loads(lacewing("info", path, *streamed, "--json")[1])["pack"]["path"]
    target.unlink()
    assert lacewing("pack", path, "--verify", "--output", tmp_path / "other.experts")[0] == 0


def test_what_cannot_be_packed(lacewing, path, tiny_path, tmp_path):
    code, _, told = lacewing("pack", tiny_path)
    assert code == 2 and "is no mixture of experts" in told
    code, _, told = lacewing("pack", path, "--verify")
    assert code == 2 and "there is no pack to compare" in told
    code, _, told = lacewing("pack", path, "--verify", "--output", tmp_path / "missing")
    assert code == 2 and f"there is no pack to compare: {tmp_path / 'missing'} does not exist" in told
    code, _, told = lacewing("pack", path, "--output", path)
    assert code == 2 and "is the model itself" in told


def test_a_link_that_cannot_be_made(lacewing, path, tmp_path):
    (tmp_path / "cache").write_text("no folder")
    code, out, told = lacewing("pack", path, "--output", tmp_path / "other.experts")
    assert code == 2 and "16 experts" in out and "other.experts is whole, but streaming does not find it" in told


def test_an_interrupt_while_the_disk_hangs(lacewing, path, monkeypatch):
    begun, hang = threading.Event(), threading.Event()
    monkeypatch.setattr(ExpertReader, "_read", lambda *_: (begun.set(), hang.wait(20)))
    with pressed(begun) as sent:
        code, _, told = lacewing("pack", path)
        seconds = time.perf_counter() - sent[0]
    assert code == 130 and "what is written is kept for the next try" in told
    assert seconds < 10  # 0.3 where nothing else runs; the disk hangs for 20
    hang.set()
