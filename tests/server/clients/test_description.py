"""schemathesis, with OpenAI's description of the paths that are served (`tools/cut_description.py`)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import tiny
from tests.cli.test_serve import Process
from tests.server.clients.conftest import ROOT, ended

CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "unsupported_method", "allow_header_conformance",
)  # fmt: skip
MODEL = "llama-wide-Q4_0"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("served")
    model = tiny("llama-wide", "gguf", folder, "Q4_0")
    server = Process(model, "--context", "256", "--store-file", folder / "responses.sqlite3")
    server.ready()
    yield server
    ended(server)


def described() -> dict[str, Any]:
    """The description, of the model that is served, with what it does not say."""
    found: dict[str, Any] = json.loads((ROOT / "tests" / "data" / "openai.json").read_text())
    assert _name_model(found["components"]["schemas"]) >= 4  # else nearly every request would be for a model that there is not
    found["paths"]["/models/{model}"]["get"]["parameters"][0]["schema"] = {"type": "string", "enum": [MODEL, "other"]}
    numbers = found["components"]["schemas"]["Embedding"]["properties"]
    numbers["embedding"] = {"anyOf": [numbers["embedding"], {"type": "string"}]}  # base64, which the request can ask for
    error = {"description": "", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}}}
    for methods in found["paths"].values():
        for operation in methods.values():
            operation["responses"].pop("404", None)  # of some, without the object that all errors are in
            operation["responses"]["4XX"] = error
    return found


def _name_model(value: Any) -> int:
    """Let every `model` be ours; how many there are."""
    if isinstance(value, list):
        return sum(map(_name_model, value))
    if not isinstance(value, dict):
        return 0
    fields, count = value.get("properties"), 0
    if isinstance(fields, dict) and "model" in fields:
        fields["model"], count = {"type": "string", "enum": [MODEL]}, 1
    return count + sum(map(_name_model, value.values()))


def run(server: Process, folder: Path, phases: str, examples: int) -> None:
    file = folder / "openai.json"
    file.write_text(json.dumps(described()))
    words = [Path(sys.executable).with_name("schemathesis"), "run", file, "--url", f"{server.url}/v1", "--checks", ",".join(CHECKS)]
    words += ["--phases", phases, "--max-examples", str(examples), "--seed", "1", "--generation-database", "none", "--no-color"]
    done = subprocess.run(
        [*words, "--continue-on-failure", "--request-timeout", "60"], cwd=folder, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert f"Tested: {sum(map(len, described()['paths'].values()))}" in done.stdout


def test_requests_of_the_description(server, tmp_path):
    run(server, tmp_path, "examples,fuzzing", 10)


@pytest.mark.slow
def test_many_requests_and_every_boundary(server, tmp_path):
    run(server, tmp_path, "examples,coverage,fuzzing", 100)
