"""The suite itself, run on a machine without a GPU driver and from the background."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.conftest import NO_GPU

ROOT = Path(__file__).parent.parent
GPU, OTHER = "tests/backends/webgpu/lowering/test_quants.py", "tests/test_options.py"


def pytest_run(*words, **variables):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words]
    return subprocess.run(command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, timeout=120)


def test_a_missing_driver_is_told_once_and_before_all_tests():
    done = pytest_run(GPU, OTHER, WGPUPY_WGPU_ADAPTER_NAME="no such adapter")
    assert done.returncode == 4 and (done.stdout + done.stderr).strip().endswith(f"ERROR: {NO_GPU}")
    assert "passed" not in done.stdout and "failed" not in done.stdout


def test_the_other_tests_run_without_a_driver():
    done = pytest_run("-rA", "-m", "not gpu and not slow", GPU, OTHER, WGPUPY_WGPU_ADAPTER_NAME="no such adapter")
    assert done.returncode == 0 and "PASSED tests/test_options.py" in done.stdout and GPU not in done.stdout


def test_ctrl_c_reaches_programs_of_tests_that_run_in_the_background():
    """A shell lets its background jobs ignore it, and they pass that on."""
    code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True\n"
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
