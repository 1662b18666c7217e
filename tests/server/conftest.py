"""One small real model for all tests of the server, and a server of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

import lacewing
from lacewing.api import Model
from tests.server.serving import OneModel, running


@pytest.fixture(scope="session")
def model(smollm2_path: Path) -> Iterator[Model]:
    with lacewing.load(smollm2_path, sequences=4) as model:
        yield model


@pytest.fixture(scope="module")
def registry(model: Model) -> OneModel:
    return OneModel(model)


@pytest.fixture(scope="module")
def url(registry: OneModel) -> Iterator[str]:
    with running(registry) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=30) as client:
        yield client
