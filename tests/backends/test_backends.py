"""Backends as folders: what the package asks of each."""

import contextlib
import importlib
import pkgutil

import pytest

from lacewing.backends import base, candidates, init_backend, known_backends
from lacewing.errors import OptionError


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.gpu) if name == "webgpu" else name for name in known_backends()]
)
def test_what_is_asked_of_a_backend_stays_whatever_of_it_is_imported(name):
    """A module that has the name of a function takes its place in the package when it is imported."""
    package = importlib.import_module(f"lacewing.backends.{name}")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    assert callable(package.open) and callable(package.candidates)
    with contextlib.suppress(base.NoDeviceError):  # an NVIDIA GPU, which few machines have
        assert all(isinstance(each, base.Candidate) for each in candidates(name))


def test_unknown_backends_are_named():
    with pytest.raises(OptionError, match="`backend` is 'tpu', which does not exist; there are auto, cpu, cuda, reference, webgpu"):
        init_backend("tpu")
