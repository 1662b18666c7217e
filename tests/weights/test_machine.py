"""What the machine leaves: control groups of both versions, from files made for the test, and the process's own limit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from lacewing.weights import this_machine

MIB = 2**20
GROUP = "the cgroup memory limit"


def make(root: Path, cgroup: str, **files: object) -> Path:
    """A root folder with proc/self/cgroup, and files under sys/fs/cgroup; `__` in a name stands for a slash, `_` stays."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("DOT", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def test_without_control_groups(tmp_path: Path) -> None:
    machine = this_machine(tmp_path)
    assert machine.bound_by in ("the free memory", "the address space limit of the process")
    assert 0 < machine.available_bytes <= machine.total_bytes == psutil.virtual_memory().total


def test_version_2_own_group(tmp_path: Path) -> None:
    files = {"a__b__memoryDOTmax": 100 * MIB, "a__b__memoryDOTcurrent": 60 * MIB,
             "a__b__memoryDOTstat": f"anon 5\ninactive_file {20 * MIB}\nactive_file {5 * MIB}\nodd line here"}  # fmt: skip
    machine = this_machine(make(tmp_path, "0::/a/b\n", **files))
    assert (machine.available_bytes, machine.bound_by) == (65 * MIB, GROUP)


def test_version_2_a_group_above_is_tighter(tmp_path: Path) -> None:
    files = {
        "a__memoryDOTmax": 50 * MIB,
        "a__memoryDOTcurrent": 45 * MIB,
        "a__b__memoryDOTmax": "max",
        "a__b__memoryDOTcurrent": MIB,
    }
    assert this_machine(make(tmp_path, "0::/a/b\n", **files)).available_bytes == 5 * MIB


def test_version_2_inside_a_container(tmp_path: Path) -> None:
    files = {"memoryDOTmax": 70 * MIB, "memoryDOTcurrent": 80 * MIB}
    machine = this_machine(make(tmp_path, "0::/../../other\n", **files))
    assert (machine.available_bytes, machine.bound_by) == (0, GROUP)  # never below nothing


def test_version_1(tmp_path: Path) -> None:
    files = {"memory__job__memoryDOTlimit_in_bytes": 90 * MIB, "memory__job__memoryDOTusage_in_bytes": 50 * MIB,
             "memory__job__memoryDOTstat": f"inactive_file 1\ntotal_inactive_file {10 * MIB}\ntotal_active_file 0"}  # fmt: skip
    lines = "5:cpu,cpuacct:/job\n4:hugetlb:/job\n3:memory:/job\n"
    assert this_machine(make(tmp_path, lines, **files)).available_bytes == 50 * MIB


@pytest.mark.parametrize("limit", ["9223372036854771712", "max", "", "-1", "many"])
def test_no_limit_and_nonsense(tmp_path: Path, limit: str) -> None:
    files = {"memoryDOTmax": limit, "memoryDOTcurrent": 1, "memoryDOTstat": "inactive_file x"}
    assert this_machine(make(tmp_path, "0::/\nrubbish\n", **files)).bound_by != GROUP


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_AS")
def test_address_space_limit() -> None:
    script = """
import resource
from lacewing.weights import this_machine
from lacewing.weights.memory import allocate
from lacewing.errors import OutOfMemoryError
resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
machine = this_machine()
print(machine.bound_by, machine.available_bytes < 4 * 2**30)
allocate(machine.available_bytes // 2, "half")
try:
    allocate(machine.available_bytes + 2**30, "weight w")
except OutOfMemoryError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "the address space limit of the process True" and lines[1].endswith("for weight w")
