"""Every test of this folder needs a GPU, or a driver that plays one. The kernels that its tests make, Dawn's compiler takes too."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lacewing.backends.webgpu.device.device import Device


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="module", autouse=True)
def _for_every_compiler() -> Iterator[None]:
    """wgpu-native's compiler takes more than browsers and Dawn do: barriers that some threads might not come to, say."""
    if importlib.util.find_spec("wgpudawn") is None:  # tests/backends/webgpu/device/bindings says that it is missing
        yield
        return
    from tests.backends.webgpu.parser import parser

    compiling = Device._compile

    def _compile(device: Device, code: str, label: str) -> Any:
        made = compiling(device, code, label)  # raises for what is wrong on purpose
        parser().check(code, label)
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Device, "_compile", _compile)
        yield
