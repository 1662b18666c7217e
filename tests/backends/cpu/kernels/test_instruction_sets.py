"""The other instruction sets that this CPU can run, the portable one among them, each in a process of its own."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lacewing.backends.cpu.isa import host_isa, supported
from lacewing.paths import cache_dir

OTHERS = [isa.name for isa in supported() if isa != host_isa()]
# Of as many lanes as the host's, which all tests run, or as another one's here: these need their products only.
WHOLE = {isa.lanes: isa.name for isa in (*supported(), host_isa())}
ROOT = Path(__file__).parents[4]
KERNELS = ROOT / "src/lacewing/backends/cpu/kernels"
PRODUCTS = ("gemm", "gemv", "tiled")  # folders


@pytest.fixture(scope="module", params=["", pytest.param("--all", marks=pytest.mark.slow)])
def processes(request: pytest.FixtureRequest) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """All at once: their first runs mostly wait for the compiler."""
    command = [sys.executable, "-m", "tests.backends.cpu.instruction_set"]
    environment = os.environ | {"LACEWING_CACHE": str(cache_dir()), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    started = {
        isa.name: subprocess.Popen(
            [*command, *filter(None, [request.param or ("" if isa.name in WHOLE.values() else "--products")])],
            cwd=ROOT,
            env=environment | {"LACEWING_CPU": isa.name},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for isa in supported()
        if isa.name in OTHERS
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


def test_only_products_know_more_than_how_wide_a_vector_is() -> None:
    """So instruction sets of the same width have the same other kernels, and one of them runs these. What is known else: the two
    of each width look up bytes with the same instruction, and pause with the same; scans tell 16 lanes, and ARM's 4, from others.
    """
    known = {"quants/lookup.py", "simd/threads.py", "scan.py", "simd/registers.py"}
    files = {path.relative_to(KERNELS).as_posix(): path.read_text(encoding="utf-8") for path in KERNELS.rglob("*.py")}
    found = {name for name, text in files.items() if re.search(r"host_isa\(|\bISA\b(?!\.lanes\b|,\n|, [A-Z])", text)}
    assert {name for name in found if not name.startswith(PRODUCTS)} <= known
    assert "gemm/products.py" in found


def test_unknown_instruction_set() -> None:
    code = "from lacewing.backends import init_backend; print(init_backend('cpu').facts())"
    environment = os.environ | {"LACEWING_CPU": "mmx"}
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "LACEWING_CPU='mmx'" in run.stderr and "portable" in run.stderr
