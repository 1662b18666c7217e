"""llama-batched-bench by turns with our engine; a script stands in for the program, which needs a GPU build of llama.cpp."""

import argparse
import stat

import pytest

from benchmarks import batched

PROGRAM = """#!/usr/bin/env python3
import json, sys
value = lambda flag: sys.argv[sys.argv.index(flag) + 1]
for number, prompt in enumerate(value("-npp").split(",")):
    for count in map(int, value("-npl").split(",")):
        print("some words of the program's log")
        print(json.dumps({"pp": int(prompt), "pl": count, "speed_pp": 100 + number, "speed_tg": 10 * count + number}))
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "llama-batched-bench"
    path.write_text(PROGRAM)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_the_best_of_what_the_program_measured(program):
    speeds = batched.peer_speeds(program, "model.gguf", 512, 64, [8, 32])
    assert speeds == {"prompt": 102, "generate": 12, "8 sequences": 82, "32 sequences": 322}
    assert batched.peer_speeds(program, "model.gguf", 512, 64, [1]) == {"prompt": 102, "generate": 12, "1 sequences": 12}
    assert batched.peer_speeds(program, "model.gguf", 512, 64, []) == {"prompt": 102, "generate": 12}


def test_a_program_that_fails_says_why(tmp_path):
    path = tmp_path / "broken"
    path.write_text("#!/bin/sh\necho no such model >&2\nexit 3\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(RuntimeError, match=r"ended with 3: no such model"):
        batched.peer_speeds(str(path), "model.gguf", 8, 2, [2])


def test_both_sides_of_a_tiny_model(program, tiny_path):
    options = argparse.Namespace(peer=program, prompt=8, generate=3, sequences=[2], rounds=1, backend="reference")
    found = batched.compare(str(tiny_path), options)
    assert set(found["ours"]) == set(found["peer"]) == {"prompt", "generate", "2 sequences"}
    assert all(speed > 0 for speed in found["ours"].values())
    assert "llama.cpp" in batched.shown(found) and "2 sequences" in batched.shown(found)
