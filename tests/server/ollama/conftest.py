"""A server of one small model, and Ollama's own client of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import ollama
import pytest

from lacewing.options import LoadOptions
from tests.server.serving import administered


@pytest.fixture(scope="module")
def server(smollm2_path: Path) -> Iterator[str]:
    with administered(smollm2_path, load=LoadOptions(sequences=4, context=2048, backend="cpu")) as (url, _):
        yield url


@pytest.fixture(scope="module")
def name(smollm2_path: Path) -> str:
    return smollm2_path.stem


@pytest.fixture(scope="module")
def client(server: str) -> Iterator[ollama.Client]:
    client = ollama.Client(host=server, timeout=120)
    yield client
    client._client.close()
