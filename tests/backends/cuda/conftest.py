"""Kernels that tests compile are kept for all of them, but not among those of a person."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lacewing.backends.cuda.device import compiling
from lacewing.backends.cuda.device.device import Device
from lacewing.errors import BackendError
from tests.backends.cuda.recording import RecordingDriver

collect_ignore_glob = ["*"] if sys.platform == "darwin" else []  # NVIDIA has no driver and no compiler for macOS


@pytest.fixture(scope="package")
def kernel_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="lacewing-cuda-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module", autouse=True)  # not for the tests after these: kernels of the CPU are kept elsewhere
def kernel_cache(request: pytest.FixtureRequest, kernel_folder: Path) -> Iterator[None]:
    """In full where tests are about what the compiler makes, and where a GPU runs it."""
    runs = any(item.get_closest_marker("nvidia") for item in request.session.items)
    whole = runs or request.module.__name__.endswith(".test_kernels")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LACEWING_CACHE", str(kernel_folder / ("whole" if whole else "quick")))
        if not whole:
            patch.setattr(compiling, "compiled", quickly(compiling.compiled))
        yield


def quickly(compiled: Callable[..., bytes]) -> Callable[..., bytes]:
    """For a driver that records and runs nothing: machine code with the same arguments, in a fifth of the time."""

    def compile_it(source: str, name: str, options: tuple[str, ...]) -> bytes:
        try:
            return compiled(source, name, (*options, "--Ofast-compile=max"))
        except BackendError:  # a number that must be known to the assembler is found by the optimiser
            return compiled(source, name, options)

    return compile_it


@pytest.fixture(scope="module", params=[(7, 5), (9, 0)], ids=str)
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    """That only records what it would launch."""
    made = Device(RecordingDriver(request.param), 0)
    yield made
    made.close()
