"""llm-comply's suites: chat completions, Anthropic's messages, Open Responses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_serve import Process
from tests.server.clients.conftest import ended

# How many there are, those that need images, which are not read here, and those that ask no model of such a name for thoughts.
SUITES = {
    "openai-chat": (9, {"chat-image-input"}, {"chat-reasoning-summary"}),
    "anthropic": (9, {"anth-image-input"}, {"anth-thinking-display"}),
    "open-responses": (13, {"image-input"}, {"reasoning-summary"}),
}
ABSENT = {"compact-response"}  # conversations are not summarised: 404, which the suite accepts and warns of


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_all_but_images(qwen_path: Path, tmp_path: Path, suite: str):
    server = Process(qwen_path, "--store-file", tmp_path / "responses.sqlite3")
    server.ready()
    name = qwen_path.name.removesuffix(".gguf")
    command = [Path(sys.executable).with_name("llm-comply"), "-u", f"{server.url}/v1", "-k", "none", "-m", name]
    done = subprocess.run([*command, "--format", suite, "--json"], capture_output=True, text=True, timeout=300, check=False)
    results = json.loads(done.stdout)["results"]
    found = {each["id"]: each for each in results}
    count, images, skipped = SUITES[suite]
    assert len(found) == count
    for each in images:
        assert found.pop(each)["errors"][0] == "HTTP 400 (expected [200])"
    for each in skipped:
        assert found.pop(each)["status"] == "skipped"
    assert {each["status"] for each in found.values()} == {"passed"}, found
    assert {id for id, each in found.items() if "warnings" in each} <= ABSENT, found
    ended(server)
