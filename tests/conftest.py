"""What tests of several folders need."""

from __future__ import annotations

import atexit
import functools
import os
import signal
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lacewing.errors import BackendError
from lacewing.weights.experts import history
from tests import guard
from tests.checkpoints import tiny
from tools import chromium, software_gpu

software_gpu.use()

# A shell lets its background jobs ignore Ctrl-C, and nohup the end of the terminal; programs that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)

# A chat that ends keeps its conversation; those of tests are not among those of a person.
_SESSIONS = tempfile.TemporaryDirectory(prefix="lacewing-sessions-")
atexit.register(_SESSIONS.cleanup)  # before Python does, which is a warning
os.environ["LACEWING_SESSIONS"] = _SESSIONS.name
# Nor are the responses that servers of tests keep.
os.environ["LACEWING_STORE_FILE"] = str(Path(_SESSIONS.name) / "responses.sqlite3")
# Nor is the usage of experts; a test would depend on that by those before.
_HISTORY = {"test": 0}
history.history_dir = lambda: Path(_SESSIONS.name) / f"experts {_HISTORY['test']}"  # made by whoever writes to it
_OURS = guard.Modules()
# Every HTTP client reads the certificates (60 ms), and tests make hundreds; their servers are all of plain HTTP.
ssl.create_default_context = functools.cache(ssl.create_default_context)


@pytest.fixture(scope="module", autouse=True)
def modules_kept() -> Iterator[None]:
    """A file that leaves one of our modules changed fails, rather than files that run after it."""
    yield
    changed = _OURS.restored()
    assert not changed, f"a test of this file left changed {', '.join(changed)}"


@pytest.fixture(autouse=True)
def settings_kept() -> Iterator[None]:
    """A test that leaves a setting of the process changed fails; none sees what another one has used."""
    _HISTORY["test"] += 1
    with guard.settings_kept():
        yield


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of `make test`: the files of a folder by one process."""
    if config.getvalue("dist") != "loadfile":
        return None
    from tests.schedule import FolderScheduling

    return FolderScheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Says once and before all tests that a driver or a browser is missing, instead of once a test."""
    _OURS.restored()  # what the files of tests have imported is known from now on
    if session.config.option.collectonly or not hasattr(session, "items"):  # xdist's workers have the tests, not this process
        return None
    missing = _missing(session.items)
    if missing and hasattr(session.config, "workerinput"):  # of an error in a worker a person would see the traceback
        session.shouldstop = missing
        return True
    if missing:
        raise pytest.UsageError(missing)
    return None


def _missing(items: list[pytest.Item]) -> str | None:
    if any(item.get_closest_marker("browser") for item in items) and chromium.find() is None:
        return chromium.NO_BROWSER
    if any(item.get_closest_marker("gpu") for item in items):
        from lacewing.backends.webgpu.device.adapters import adapters

        software_gpu.load()
        try:
            adapters()
        except BackendError:
            return software_gpu.NO_GPU
    return None


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """SmolLM2-135M-Instruct, fetched once into the user's cache. Only this fixture and the next two may reach a network."""
    from lacewing.hub.pull import pull

    return pull("smollm2").path


@pytest.fixture(scope="session")
def gemma3_path() -> Path:
    """Gemma-3-270M-it, likewise."""
    from lacewing.hub.pull import pull

    return pull("gemma3-270m").path


@pytest.fixture(scope="session")
def qwen_path() -> Path:
    """Qwen2.5-Coder-0.5B-Instruct (491 MB), likewise, for slow tests only."""
    from lacewing.hub.pull import pull

    return pull("qwen2.5-coder-0.5b").path


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random llama as a GGUF file, with a tokenizer and a chat template."""
    return tiny("llama-wide", "gguf", tmp_path_factory.mktemp("tiny"), "Q4_0")
