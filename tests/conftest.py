"""What tests of several folders need."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checkpoints import tiny


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """SmolLM2-135M-Instruct, fetched once into the user's cache. Only this fixture and the next may reach a network."""
    from lacewing.hub.pull import pull

    return pull("smollm2").path


@pytest.fixture(scope="session")
def gemma3_path() -> Path:
    """Gemma-3-270M-it, likewise."""
    from lacewing.hub.pull import pull

    return pull("gemma3-270m").path


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random llama as a GGUF file, with a tokenizer and a chat template."""
    return tiny("llama-wide", "gguf", tmp_path_factory.mktemp("tiny"), "Q4_0")
