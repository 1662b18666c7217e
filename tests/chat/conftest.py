"""Tiny checkpoints of three architectures, and sessions with them on the CPU, which is bitwise repeatable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lacewing.chat.services.opening import open_session
from lacewing.chat.session.session import Session
from lacewing.options import LoadOptions, Sampling
from tests.checkpoints import tiny

GREEDY = Sampling(temperature=0, max_tokens=6)


@pytest.fixture(scope="session")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("chat")
    return {
        "llama": tiny("llama-wide", "gguf", folder, "Q4_0"),
        "gemma": tiny("gemma3-wide", "gguf", folder, "Q4_0"),
        "qwen": tiny("qwen3", "huggingface", folder),
    }


@pytest.fixture
def start(paths: dict[str, Path]) -> Iterator[Callable[..., Session]]:
    """Opens sessions, which are closed afterwards."""
    opened: list[Session] = []

    def open_one(name: str = "llama", context: int = 512, **options: object) -> Session:
        opened.append(open_session(str(paths[name]), LoadOptions("cpu", context=context, threads=1, **options), GREEDY))  # type: ignore[arg-type]
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


@pytest.fixture
def chat_on_gpu(paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """On a device of its own, as the tests break it."""
    monkeypatch.setenv("LACEWING_WEBGPU", "dot")
    monkeypatch.setenv("LACEWING_WEBGPU_CHECKS", "1")
    session = open_session(str(paths["llama"]), LoadOptions("webgpu", context=256), GREEDY)
    yield session
    session.close()


def say(session: Session, text: str) -> str:
    """The answer to a message."""
    for _ in session.say(text):
        pass
    return str(session.messages[-1]["content"])


@pytest.fixture
def expected(start: Callable[..., Session]) -> list[str]:
    """The answers of a session in which nothing goes wrong."""
    session = start()
    return [say(session, "Hello"), say(session, "And you?")]
