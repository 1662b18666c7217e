"""llm-comply's suite for chat completions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_serve import Process
from tests.server.clients.conftest import ended


@pytest.mark.slow
def test_chat_completions(qwen_path: Path):
    """Images are not read here, and the suite asks no model of such a name for thoughts."""
    server = Process(qwen_path)
    server.ready()
    name = qwen_path.name.removesuffix(".gguf")
    command = [Path(sys.executable).with_name("llm-comply"), "-u", f"{server.url}/v1", "-k", "none", "-m", name]
    done = subprocess.run([*command, "--format", "openai-chat", "--json"], capture_output=True, text=True, timeout=300, check=False)
    found = {each["id"]: each for each in json.loads(done.stdout)["results"]}
    assert found.pop("chat-image-input")["errors"][0] == "HTTP 400 (expected [200])"
    assert found.pop("chat-reasoning-summary")["status"] == "skipped"
    assert len(found) == 7 and {each["status"] for each in found.values()} == {"passed"}, found
    assert not any("warnings" in each for each in found.values()), found
    ended(server)
