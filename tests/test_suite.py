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


def test_signals_reach_the_programs_of_a_suite_in_the_background(tmp_path):
    """A shell and nohup let such jobs ignore them."""
    (tmp_path / "test_it.py").write_text(
        "import subprocess, sys\n\n\ndef test_it():\n    assert subprocess.run([sys.executable, '-c', "
        "'import signal; assert signal.SIG_IGN not in map(signal.getsignal, (signal.SIGINT, signal.SIGHUP))']).returncode == 0\n"
    )

    def ignore():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path]
    done = subprocess.run(command, cwd=ROOT, preexec_fn=ignore, timeout=120)
    assert done.returncode == 0
