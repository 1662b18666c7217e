"""AMX: the bits of the other instruction sets. On a CPU without it the instructions are emulated, and looked at as machine code."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from lacewing.backends.cpu import isa
from tests.backends.cpu.kernels.test_assembly import assembly

ROOT = Path(__file__).parents[4]
HERE = isa.AMX in isa.supported()
NATIVE = pytest.mark.skipif(
    not HERE,
    reason="this CPU has no AMX, or the system does not allow it: here the other tests of this file emulate and disassemble it",
)
# Where there is AMX, the next test runs the same products on it, and the emulator's kernels would be compiled for nothing more.
WITHOUT = pytest.mark.slow if HERE else (lambda test: test)
X86 = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="Numba makes code of the host's kind as well: this is no x86"
)


def started(*flags: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.backends.cpu.many_tokens", *flags]
    kept = {name: value for name, value in os.environ.items() if name != "LACEWING_CPU"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, cwd=ROOT, env=kept | environment, text=True, **pipes)  # type: ignore[call-overload, no-any-return]


def same_lines(*processes: subprocess.Popen[str]) -> None:
    """Of processes that run side by side."""
    outputs = [process.communicate(timeout=900)[0] for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output
    assert len(outputs[0].splitlines()) > 100
    for output in outputs[1:]:
        assert output.splitlines() == outputs[0].splitlines()


@WITHOUT
def test_emulated_tiles_give_the_bits_of_this_cpu(tmp_path: Path) -> None:
    same_lines(started(), started("--emulated", LACEWING_CACHE=str(tmp_path)))


@NATIVE
def test_tiles_give_the_bits_of_vectors() -> None:
    same_lines(started(LACEWING_CPU="amx"), started(LACEWING_CPU="avx512"))


@X86
@pytest.mark.parametrize(
    ("kernel", "product"), [("min32", "tdpbsud"), ("min16", "tdpbsud"), ("offset32", "tdpbssd"), ("offset16", "tdpbssd")]
)
def test_kernels_use_tiles_and_leave_none_behind(kernel: str, product: str) -> None:
    text = assembly(f"gemm.amx.{kernel}", "amx")
    assert text.count(product) == text.count("tilestored") >= 2 and text.count("tdpb") == text.count(product)
    assert text.count("ldtilecfg") == text.count("tilerelease") == 1


def test_amx_needs_the_system_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    has = {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni", "f16c", "amx-tile", "amx-int8"}
    monkeypatch.setattr(isa, "host_features", lambda: frozenset(has))
    monkeypatch.setattr(isa, "tiles_allowed", lambda: True)
    assert isa.supported()[:2] == [isa.AMX, isa.AVX512]
    monkeypatch.setattr(isa, "tiles_allowed", lambda: False)
    assert isa.supported()[0] == isa.AVX512
    monkeypatch.setattr(isa, "tiles_allowed", lambda: True)
    monkeypatch.setattr(isa, "host_features", lambda: frozenset(has - {"amx-int8"}))
    assert isa.supported()[0] == isa.AVX512
