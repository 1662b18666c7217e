"""How long streams pause while a long prompt is read is measured."""

import argparse

from benchmarks import gaps
from tests.checkpoints import tiny


def test_gaps_lie_between_the_two_times():
    assert gaps.gaps([[0.0, 1.0, 1.5], [0.5, 3.0, 9.0]], 0.8, 2.0) == [0.5, 1.0, 2.5]


def test_streams_beside_a_long_prompt(tmp_path):
    options = argparse.Namespace(streams=2, tokens=300, prompt=100, threads=1, serve="")
    found = gaps.measure(tiny("llama-wide", "gguf", tmp_path, "Q4_0"), options)
    assert found["prompt"] > 100 and 0 < found["median"] <= found["p99"] <= found["longest"] and found["first"] > 0
