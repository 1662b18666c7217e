"""The other instruction sets that this CPU can run, the portable one among them, each in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lacewing.backends.cpu.isa import host_isa, supported
from lacewing.paths import cache_dir

OTHERS = [isa.name for isa in supported() if isa != host_isa()]
ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module", params=["", pytest.param("--all", marks=pytest.mark.slow)])
def processes(request: pytest.FixtureRequest) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """All at once: their first runs mostly wait for the compiler."""
    command = [sys.executable, "-m", "tests.backends.cpu.instruction_set", *filter(None, [request.param])]
    environment = os.environ | {"LACEWING_CACHE": str(cache_dir()), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    started = {
        name: subprocess.Popen(
            command, cwd=ROOT, env=environment | {"LACEWING_CPU": name}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for name in OTHERS
    }
    yield started
    for process in started.values():
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", OTHERS)
def test_instruction_set(name: str, processes: dict[str, subprocess.Popen[str]]) -> None:
    output, _ = processes[name].communicate(timeout=400)
    assert processes[name].returncode == 0, output
    assert f"{name} works" in output


def test_unknown_instruction_set() -> None:
    code = "from lacewing.backends import init_backend; print(init_backend('cpu').facts())"
    environment = os.environ | {"LACEWING_CPU": "mmx"}
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "LACEWING_CPU='mmx'" in run.stderr and "portable" in run.stderr
