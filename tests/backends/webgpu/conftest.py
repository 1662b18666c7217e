"""Without an adapter every test of this folder fails and says what to install."""

from __future__ import annotations

import pytest

from tests.backends.webgpu.single_ops import adapter


@pytest.fixture(scope="session", autouse=True)
def _adapter() -> None:
    adapter()
