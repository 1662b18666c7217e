"""The suite itself: without a GPU driver, in the background, and in CI on a clean machine."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

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


APT = """#!/bin/bash
echo "apt-get $*"
[ "$1" = update ] || { printf '#!/bin/bash\\necho make "$@"\\n' > "${0%/*}/make"; /bin/chmod +x "${0%/*}/make"; }
"""


@pytest.mark.parametrize(
    ("present", "asked", "python"),
    [
        ({}, "make python3.11 python3.11-venv", "python3.11"),
        ({"python3": "exit 1", "python3.12": ""}, "make", "python3.12"),  # the system's own is too old
        ({"python3": 'case "$2" in *ensurepip*) exit 1;; esac'}, "make python3-venv", "python3"),
    ],
)
def test_ci_installs_what_a_clean_machine_lacks(present, asked, python, tmp_path):
    """With stand-ins for the system's programs; whether Mesa is asked for depends on this machine."""
    for name in ("bash", "dirname", "id", "env"):
        (tmp_path / name).symlink_to(shutil.which(name))
    programs = {"apt-get": APT, "sudo": '#!/bin/bash\n"$@"\n'} | {name: f"#!/bin/bash\n{code}\n" for name, code in present.items()}
    for name, code in programs.items():
        (tmp_path / name).write_text(code)
        (tmp_path / name).chmod(0o755)
    done = subprocess.run([ROOT / ".ci" / "run"], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=True)
    update, install, make = done.stdout.replace(" mesa-vulkan-drivers", "").splitlines()
    assert update == "apt-get update -qq" and install.endswith(f"--no-install-recommends {asked}")
    assert make == f"make PYTHON={python} check"


def test_ci_says_what_is_missing_where_it_cannot_install(tmp_path):
    for name in ("bash", "dirname", "id", "env"):
        (tmp_path / name).symlink_to(shutil.which(name))
    done = subprocess.run([ROOT / ".ci" / "run"], env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("this machine lacks make python3.11") and done.stderr.count("\n") == 1
