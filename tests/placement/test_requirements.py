"""What a model takes, told from its headers: live pages of the KV cache at full context, on the real geometries."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lacewing.backends.base import DeviceMemory, estimate
from lacewing.backends.reference.backend import ReferenceBackend
from lacewing.cli import main
from lacewing.offload.plan import OffloadLevel, OffloadPlanner
from lacewing.options import REFERENCE, LoadOptions
from lacewing.placement.info import ModelInfo
from lacewing.placement.place import place
from lacewing.placement.requirements import requirements, run_tokens, target_on
from tests import sparse_files
from tests.checkpoints import tiny

GIB = 2**30


def info_of(path: Path, context: int, **options: object) -> ModelInfo:
    return ModelInfo(path, LoadOptions(REFERENCE, context=context, **options), warm=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "layers", "whole", "limit"),
    # full layers hold every page, windowed and chunked ones what is in reach while 512 tokens run
    [("gpt-oss-120b", 36, 9.0, 4.7), ("llama-4-scout", 48, 24.0, 7.4)],
)
def test_live_pages_at_full_context(name: str, layers: int, whole: float, limit: float, tmp_path: Path) -> None:
    info = info_of(sparse_files.write(name, "gguf", tmp_path), 131_072)
    states = info.spec.program.states
    assert len(states) == layers
    all_pages = sum(131_072 // 128 * state.page_bytes for state in states)  # type: ignore[union-attr]
    assert all_pages / GIB == pytest.approx(whole, rel=0.01)
    assert place(info, tell=True).plan.kv_bytes <= limit * GIB < 0.6 * all_pages


def test_live_pages_of_windows_stop_growing(tmp_path: Path) -> None:
    """Beyond window and run a longer context costs the full layers only."""
    path = tiny("gemma3", "gguf", tmp_path)
    sizes = [requirements(info_of(path, context), ReferenceBackend()).kv_bytes for context in (2048, 4096, 8192)]
    full = [state for state in info_of(path, 2048).spec.program.states if state.reach is None]  # type: ignore[union-attr]
    grown = 2048 // 128 * sum(state.page_bytes for state in full)  # type: ignore[union-attr]
    assert sizes[1] - sizes[0] == grown and sizes[2] - sizes[1] == 2 * grown


def test_info_tells_the_kv_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = tiny("llama", "gguf", tmp_path)
    found = []
    for kv_type in ("f32", "f16"):
        monkeypatch.setattr(
            sys, "argv", ["lacewing", "info", str(path), "--json", "--context", "256", "--backend", REFERENCE, "--kv-type", kv_type]
        )
        with pytest.raises(SystemExit):
            main()
        plan = json.loads(capsys.readouterr().out)["plan"]
        assert plan["kv_bytes"] == next(row["bytes"] for row in plan["rows"] if row["name"] == "KV cache")
        found.append(plan["kv_bytes"])
    assert found[0] == 2 * found[1] > 0


class LongRuns(ReferenceBackend):
    def run_tokens(self, program):
        return 2048


def test_long_runs_where_memory_has_room(tmp_path: Path) -> None:
    path = tiny("llama", "gguf", tmp_path)
    info, backend = info_of(path, 4096), LongRuns()
    needed = target_on(info, backend, 2048).load(info.spec.program).nbytes
    assert needed > target_on(info, backend).load(info.spec.program).nbytes
    assert [run_tokens(info, backend, room) for room in (needed, needed - 1, None)] == [2048, 512, 512]
    assert run_tokens(info_of(path, 600), backend, needed) == 600  # what a run can have at most
    assert run_tokens(info_of(path, 600, sequences=3), backend, needed) == 1800
    assert run_tokens(info, ReferenceBackend(), needed) == 512


class Large(ReferenceBackend):
    """Says that it takes more."""

    def memory(self, program, weights, limits):
        told = estimate(program, weights, limits)
        return DeviceMemory(told.weight_bytes, tuple(3 * each for each in told.group_bytes), 1000, 200, 30)


def test_the_backend_is_asked(tmp_path: Path) -> None:
    info = info_of(tiny("llama", "gguf", tmp_path), 256)
    plain, large = (requirements(info, backend) for backend in (ReferenceBackend(), Large()))
    assert large.kv_bytes == 3 * plain.kv_bytes and (large.buffer_bytes, large.copied_bytes) == (1200, 30)
    load = target_on(info, Large()).load(info.spec.program)
    assert (load.kv_bytes, load.buffer_bytes) == (large.kv_bytes, 1200)


def test_a_part_takes_its_part(tmp_path: Path) -> None:
    """Of stacks of resident experts their share, of states those of the layers that are there."""
    info = info_of(tiny("qwen3moe", "gguf", tmp_path), 256)
    planner = OffloadPlanner(info.spec.program, target_on(info, ReferenceBackend()))
    whole, half = planner.load(OffloadLevel()), planner.load(OffloadLevel(shared=2, resident=4))
    experts = info.spec.sizes.expert_bytes
    embedding = info.spec.tensors["token_embd.weight"].nbytes
    assert whole.weight_bytes - half.weight_bytes in (experts // 2, experts // 2 + embedding) and half.kv_bytes == whole.kv_bytes
    assert planner.load(OffloadLevel(1, 2)).kv_bytes == whole.kv_bytes // 2


def test_tokens_of_all_sequences_are_planned(tmp_path: Path) -> None:
    """One context at least; windows are for each row, whatever is asked for."""
    path = tiny("gemma3", "gguf", tmp_path)
    found = [
        requirements(info_of(path, 1024, sequences=4, kv_tokens=tokens), ReferenceBackend()).kv_bytes
        for tokens in (None, 5, 1024, 3072)
    ]
    full = [state for state in info_of(path, 1024).spec.program.states if state.reach is None]  # type: ignore[union-attr]
    assert found[0] == found[1] == found[2]
    assert found[3] - found[2] == 2048 // 128 * sum(state.page_bytes for state in full)  # type: ignore[union-attr]
