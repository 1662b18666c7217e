"""The examples run, on a tiny model, and stay short."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# that of a client needs a server: tests/server/test_docs.py runs it
EXAMPLES = [path for path in sorted((Path(__file__).parent.parent / "examples").glob("*.py")) if path.stem != "client"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path, tiny_path):
    assert len(path.read_text().splitlines()) <= 40
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    done = subprocess.run([sys.executable, path, str(tiny_path)], capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
