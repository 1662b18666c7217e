"""Which thread counts are measured, and what the figures are held against."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
from benchmarks.threads import model_names, parse, rows_of, thread_counts

from benchmarks import threads


def test_counts_that_this_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "allowed", lambda: frozenset(range(6)))
    assert thread_counts("1,2,4,8,all") == [1, 2, 4, 6] and thread_counts("16") == [6] and thread_counts("2,2,1") == [1, 2]
    for wrong in ("0", "two", "", "-1"):
        with pytest.raises(argparse.ArgumentTypeError, match="neither a number"):
            thread_counts(wrong)


def test_models_by_name() -> None:
    assert model_names("llama-1b,llama-8b,smollm2") == ["llama-1b", "llama-8b", "smollm2"]
    with pytest.raises(argparse.ArgumentTypeError, match="'llama-9b' is not measured"):
        model_names("llama-1b,llama-9b")


def test_rows_and_goals() -> None:
    def speeds(generate: float, prompt: float) -> list[dict[str, float]]:
        return [{"generate": generate * factor, "prompt": prompt * factor} for factor in (0.9, 1, 1.2)]

    rows = rows_of("llama-8b", {1: speeds(2, 20), 16: speeds(11, 90)}, {1: speeds(1.8, 20), 16: speeds(10.5, 100)})
    assert [(row.name, row.shown, row.reached) for row in rows] == [
        ("llama-8b generate, 1 thread, tokens/s", "1.11 x", True),
        ("llama-8b generate, 16 threads, tokens/s", "1.05 x", False),
        ("llama-8b prompt, 1 thread, tokens/s", "1.00 x", True),
        ("llama-8b prompt, 16 threads, tokens/s", "0.90 x", False),
    ]


def test_both_sides_are_told_the_threads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    orders: list[tuple[str, str, Any]] = []

    class Side:
        def __init__(self, name: str, *_: object):
            self.name = name

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

        def ask(self, do: str, **fields: int) -> dict[str, float]:
            orders.append((self.name, do, fields))
            return {"prompt": 5.0, "generate": 2.0}

    (tmp_path / "libllama.so").touch()
    monkeypatch.setattr(threads, "Side", Side)
    monkeypatch.setattr(threads, "path_of", Path)
    monkeypatch.setattr(threads, "SETTLE_SECONDS", 0)
    monkeypatch.setattr(threads, "allowed", lambda: frozenset(range(8)))
    options = parse(["--peer", str(tmp_path), "--threads", "1,8", "--rounds", "2"])
    raw: dict[str, Any] = {}
    rows = threads.compare("llama-1b", options, raw)
    assert len(rows) == 4 and all(len(each) == 2 for each in raw["llama-1b"]["peer"].values())
    told = [(name, fields["count"]) for name, do, fields in orders if do == "threads"]
    assert told == [("lacewing", 8), ("peer", 8), *[("lacewing", 1), ("peer", 1), ("lacewing", 8), ("peer", 8)] * 2]
    asked = [fields for _, do, fields in orders if do == "speed"]
    assert asked[2] == {"prompt": 32, "generate": 6} and asked[-1] == {"prompt": 128, "generate": 24}


def test_a_folder_without_libraries_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--peer", str(tmp_path)])
    assert "does not hold llama.cpp's libraries" in capsys.readouterr().err
