"""docs/server.md is what the source says, and its examples run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from lacewing.server.openai.fields import IGNORED, REFUSED
from tools import make_docs, server_docs

ROOT = Path(__file__).parent.parent.parent
PAGE = make_docs.SERVER.read_text(encoding="utf-8")


def test_the_page_is_up_to_date():
    assert server_docs.page(make_docs.CLIENT.read_text(encoding="utf-8")) == PAGE, "run tools/make_docs.py"


def test_every_field_says_what_it_does():
    assert not re.search(r"^\| `[^|]*` \| *\|$", PAGE, re.MULTILINE)
    assert not set(IGNORED) & set(REFUSED)


def test_the_example_of_curl(url):
    (command,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    words = shlex.split(command.replace("http://127.0.0.1:8080", url).replace('"smollm2"', '"tiny"').replace("\\\n", " "))
    done = subprocess.run([*words, "--silent", "--fail"], capture_output=True, text=True, timeout=60, check=True)
    assert '"finish_reason":"' in done.stdout


def test_the_example_of_openai(url):
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    command = [sys.executable, make_docs.CLIENT, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr
