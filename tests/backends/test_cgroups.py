"""CPU quotas of control groups, version 1 and 2, from files made for the test."""

from __future__ import annotations

from pathlib import Path

import pytest

from lacewing.backends.cgroups import CPU, MEMORY, cpu_quota, group_folders
from tests.backends.trees import tree

ONE = {"quota": "150000", "period": "100000"}


def version_1(folder: str, quota: str, period: str) -> dict[str, object]:
    return {f"sys/fs/cgroup/{folder}/cpu.cfs_quota_us": quota, f"sys/fs/cgroup/{folder}/cpu.cfs_period_us": period}


def test_without_control_groups(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None
    assert list(group_folders(CPU, tmp_path)) == []


def test_version_2_the_tightest_group_counts(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/a/b/c", "sys/fs/cgroup/a/cpu.max": "250000 100000", "sys/fs/cgroup/a/b/cpu.max": "max 100000",
             "sys/fs/cgroup/a/b/c/cpu.max": "800000 100000"}  # fmt: skip
    assert cpu_quota(tree(tmp_path, files)) == 2.5


def test_version_2_inside_a_container(tmp_path: Path) -> None:
    """The mount is the container's own group, whose path from there the system writes with dots."""
    assert cpu_quota(tree(tmp_path, {"proc/self/cgroup": "0::/../../x", "sys/fs/cgroup/cpu.max": "400000 100000"})) == 4.0


@pytest.mark.parametrize("folder", ["cpu", "cpu,cpuacct"])
def test_version_1_alone_or_with_accounting(tmp_path: Path, folder: str) -> None:
    files = {"proc/self/cgroup": "5:cpu,cpuacct:/docker/job\n4:memory:/docker", **version_1(f"{folder}/docker/job", **ONE)}
    assert cpu_quota(tree(tmp_path, files)) == 1.5


def test_both_versions_at_once(tmp_path: Path) -> None:
    """The accounting controller alone sets no limit."""
    files = {"proc/self/cgroup": "3:cpuacct:/job\n1:cpu:/job\n0::/user", **version_1("cpu/job", "300000", "100000"),
             **version_1("cpuacct/job", "100000", "100000"), "sys/fs/cgroup/user/cpu.max": "200000 100000"}  # fmt: skip
    assert cpu_quota(tree(tmp_path, files)) == 2.0
    folders = [(version, folder.relative_to(tmp_path).as_posix()) for version, folder in group_folders(CPU, tmp_path)]
    assert folders == [
        (1, "sys/fs/cgroup/cpu"),
        (1, "sys/fs/cgroup/cpu/job"),
        (2, "sys/fs/cgroup"),
        (2, "sys/fs/cgroup/user"),
    ]
    assert [version for version, _ in group_folders(MEMORY, tmp_path)] == [2, 2]


@pytest.mark.parametrize(("quota", "period"), [("-1", "100000"), ("0", "100000"), ("100000", "0"), ("", ""), ("many", "few")])
def test_no_limit_and_nonsense(tmp_path: Path, quota: str, period: str) -> None:
    files = {"proc/self/cgroup": "rubbish\n1:cpu:/\n0::/", **version_1("cpu", quota, period),
             "sys/fs/cgroup/cpu.max": f"{quota} {period}"}  # fmt: skip
    assert cpu_quota(tree(tmp_path, files)) is None
