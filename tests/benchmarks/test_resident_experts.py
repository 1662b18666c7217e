"""A replayed trace: the share of choices that were among the resident experts."""

import json

import pytest
from benchmarks.resident_experts import replay


def test_experts_that_are_always_chosen_are_resident_after_the_first_rebalancing(tmp_path):
    trace = tmp_path / "trace.jsonl"
    trace.write_text(f"{json.dumps({'layers': [[6, 7], [0, 5]]})}\n" * 12)  # layer 0: none of them is resident at first
    assert replay(trace, experts=8, part=4, every=4) == pytest.approx(1.0)
