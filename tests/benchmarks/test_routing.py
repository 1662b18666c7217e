"""The cost of routing statistics is measured on the same engine, on and off by turns."""

import pytest

from benchmarks import routing
from lacewing.api import load
from tests.checkpoints import tiny


def test_measured_by_turns(tmp_path):
    with load(tiny("qwen3moe", "gguf", tmp_path), backend="reference", context=64) as model:
        found = routing.measure(model.engine, 8, 3, 2)
        assert [len(found[side]) for side in ("off", "on")] == [2, 2]
        model.engine.forget()
        model.logits([1, 2])
        assert model.step.routes() == []  # off again
    generate, prompt = routing.rows(found)
    assert generate.name.startswith("generate") and prompt.name.startswith("prompt")


def test_two_percent():
    def row(on):
        return routing.rows({"off": [{"generate": 100.0, "prompt": 1.0}], "on": [{"generate": on, "prompt": 1.0}]})[0]

    assert row(98.1).reached and not row(97.9).reached and row(101.0).reached
    assert row(98.1).result == pytest.approx(100 / 98.1 - 1)
