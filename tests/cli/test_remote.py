"""`--server` of run and chat."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from lacewing.options import LoadOptions
from tests.checkpoints import tiny
from tests.server.serving import administered


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[tuple[str, str]]:
    """The address of a server, and the model's name."""
    path = tiny("llama-wide", "gguf", tmp_path_factory.mktemp("models"), "Q4_0")
    with administered(path, load=LoadOptions("cpu", context=256, threads=1, sequences=2)) as (address, _):
        yield address, path.stem


def lacewing(*words: str, text: str = "", folder=None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({"LACEWING_SESSIONS": str(folder)} if folder else {})
    command = [sys.executable, "-m", "lacewing", *words]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, env=environment)


def test_run(served):
    address, name = served
    words = ("run", "--server", address, "--temperature", "0", "--max-tokens", "5")
    plain = lacewing(*words, "Hello")
    assert plain.returncode == 0, plain.stderr
    named = lacewing(*words, name, "Hello", "--json")
    found = json.loads(named.stdout)
    assert found["text"].strip() == plain.stdout.strip() and found["generated_tokens"] == 5 and found["finish_reason"] == "length"
    raw = lacewing(*words, "--raw", "Hello")
    assert raw.returncode == 0 and raw.stdout and raw.stdout != plain.stdout


def test_chat(served, tmp_path):
    address, name = served
    words = ("chat", "--server", address, "--temperature", "0", "--max-tokens", "5")
    done = lacewing(*words, text="Hello\n/model\nAnd you?\n", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert name in done.stderr
    again = lacewing(*words, "--resume", text="/show\n", folder=tmp_path)
    assert "And you?" in again.stderr + again.stdout
    local = lacewing("chat", "--resume", folder=tmp_path)
    assert local.returncode == 1 and f"lacewing chat --server {address} --resume" in local.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--backend", "cpu", "Hello"), "--backend is for models of this machine"),
        (("-m", "nix", "Hello"), "has no model 'nix'"),
        (("--special", "Hello"), "--special needs --raw"),
        (("--template", "raw", "Hello"), "a server chooses the template"),
        ((), "there is no prompt"),
    ],
)
def test_mistakes(served, words, text):
    done = lacewing("run", "--server", served[0], *words)
    assert done.returncode == 2 and text in done.stderr and "Traceback" not in done.stderr


def test_what_is_configured_for_models_of_this_machine_stands_in_no_way(served, monkeypatch):
    monkeypatch.setenv("LACEWING_THREADS", "1")
    words = ("run", "--server", served[0], "--max-tokens", "2", "Hello")
    done = lacewing(*words)
    assert done.returncode == 0, done.stderr
    refused = lacewing(*words, "--threads", "1")
    assert refused.returncode == 2 and "--threads is for models of this machine" in refused.stderr


@pytest.mark.parametrize("words", [("run", "--server", "", "smollm2", "Hello"), ("chat", "--server", "")])
def test_an_empty_address_is_none(words):
    """It comes from a script's unset variable; a model of this machine is not what was asked for."""
    done = lacewing(*words)
    assert done.returncode == 2 and "'' is not the address of a server" in done.stderr
