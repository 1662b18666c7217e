"""One small real model for all tests of the server, and a server of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest

import lacewing
from lacewing.api import Model
from tests.server.scripted import Scripted, ScriptedAssistant
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


@pytest.fixture(scope="module")
def scripted(model: Model) -> Iterator[tuple[str, ScriptedAssistant]]:
    """A server, and what makes its model say what a test wants."""
    registry = Scripted(model)
    with running(registry) as url:
        yield url, registry.assistant


@pytest.fixture
def says(scripted) -> Iterator[Callable[[str | None], str]]:
    """Has the next answers say a text; gives the server's address."""
    url, assistant = scripted

    def say(text: str | None) -> str:
        assistant.script = text
        return url

    yield say
    assistant.script = None
