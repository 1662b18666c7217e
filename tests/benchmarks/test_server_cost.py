"""What the server's own work costs is measured."""

import argparse

from benchmarks import server_cost
from tests.checkpoints import tiny


def test_the_cost_of_a_token(tmp_path):
    options = argparse.Namespace(clients=2, requests=4, prompt=8, tokens=12, threads=1)
    found = server_cost.measure(tiny("llama-wide", "gguf", tmp_path, "Q4_0"), options, tmp_path)
    assert found["tokens"] == 4 * 12 and found["tokens_per_second"] > 0
    assert 0 < found["driver_us"] < 1e5 and 0 < found["outside_share"] < 1
