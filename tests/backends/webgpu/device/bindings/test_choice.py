"""Which library shows a GPU. Made-up GPUs stand for those with matrix units, which no software has."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from lacewing.backends.webgpu.device.adapters import candidates
from lacewing.backends.webgpu.device.bindings import choice
from lacewing.backends.webgpu.device.bindings.choice import shown, wanted_binding
from lacewing.backends.webgpu.device.bindings.native import NATIVE
from lacewing.backends.webgpu.device.variant import wanted_variants
from lacewing.errors import BackendError, OptionError
from tests.backends.webgpu import swiftshader

UNITS = frozenset({"subgroup-matrix", "shader-f16", "subgroup"})


def gpu(name: str, vendor: int, features: frozenset[str] = frozenset(), squares: bool = True) -> Any:
    info = {"device": name, "vendor_id": vendor, "device_id": 7, "backend_type": "Vulkan", "adapter_type": "DiscreteGPU"}
    return SimpleNamespace(info=info, features=features, squares=squares)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a machine of the GPUs that wgpu-native shows and those that Dawn does; None: Dawn is not installed."""
    monkeypatch.delenv("LACEWING_WEBGPU", raising=False)

    def make(native: list[Any], theirs: list[Any] | None) -> None:
        other = SimpleNamespace(
            adapters=lambda interfaces: list(theirs or []), features=lambda one: one.features, has_units=lambda one: one.squares
        )
        monkeypatch.setattr(NATIVE, "adapters", lambda interfaces: list(native))
        if theirs is not None:
            monkeypatch.setattr(choice, "dawn", lambda: other)

    return make


def test_dawn_is_taken_for_matrix_units(machine: Any) -> None:
    """GPU by GPU: not for one without units, with squares of other sizes, or without float16."""
    native = [gpu("A", 1), gpu("B", 2), gpu("C", 3), gpu("D", 4), gpu("E", 5)]
    theirs = [gpu("D", 4, UNITS - {"shader-f16"}), gpu("C", 3, UNITS, squares=False), gpu("B", 2), gpu("A", 1, UNITS)]
    machine(native, theirs)
    assert shown(["Vulkan"]) == [theirs[3], *native[1:]]


def test_each_of_two_that_are_alike_is_taken_once(machine: Any) -> None:
    native, theirs = [gpu("A", 1), gpu("A", 1), gpu("A", 1)], [gpu("A", 1, UNITS), gpu("A", 1, UNITS)]
    machine(native, theirs)
    found = shown(["Vulkan"])
    assert [id(each) for each in found] == [id(theirs[0]), id(theirs[1]), id(native[2])]


def test_dawn_is_not_loaded_where_wgpu_is_asked_for(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    native = [gpu("A", 1)]
    machine(native, [gpu("A", 1, features=UNITS)])
    monkeypatch.setenv("LACEWING_WEBGPU", "wgpu")
    monkeypatch.setattr(choice, "dawn", lambda: pytest.fail("Dawn is loaded for nothing"))
    assert shown(["Vulkan"]) == native


def test_a_binding_is_forced(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    native, theirs = [gpu("A", 1)], [gpu("A", 1, features=UNITS), gpu("B", 2)]
    machine(native, theirs)
    monkeypatch.setenv("LACEWING_WEBGPU", "wgpu")
    assert shown(["Vulkan"]) == native and wanted_variants() is None
    monkeypatch.setenv("LACEWING_WEBGPU", "dot, dawn")
    assert shown(["Vulkan"]) == theirs and wanted_variants() == {"dot"}
    monkeypatch.setenv("LACEWING_WEBGPU", "dawn,wgpu")
    with pytest.raises(OptionError, match="LACEWING_WEBGPU=dawn,wgpu: name dawn or wgpu, not both"):
        wanted_binding()


def test_dawn_that_is_missing(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forced it is an error that says how to get it; otherwise nothing changes."""
    machine([gpu("A", 1)], None)
    monkeypatch.setitem(sys.modules, "wgpudawn", None)
    monkeypatch.delitem(sys.modules, "lacewing.backends.webgpu.device.bindings.dawn", raising=False)
    assert len(shown(["Vulkan"])) == 1
    monkeypatch.setenv("LACEWING_WEBGPU", "dawn")
    with pytest.raises(BackendError, match=r"Dawn cannot be loaded .*pip install 'lacewing\[dawn\]'.*wgpu-native is used"):
        shown(["Vulkan"])


def test_dawn_that_does_not_work_is_told_once(
    machine: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    native = [gpu("A", 1)]
    machine(native, [])

    def broken() -> Any:
        raise BackendError("Dawn cannot be loaded (no libvulkan); more words")

    monkeypatch.setattr(choice, "dawn", broken)
    choice._tell.cache_clear()
    assert shown(["Vulkan"]) == shown(["Vulkan"]) == native
    (told,) = caplog.records
    assert "wgpu-native is used" in told.getMessage() and "no libvulkan" in told.getMessage()
    choice._tell.cache_clear()


@pytest.mark.browser
def test_candidates_say_which(monkeypatch: pytest.MonkeyPatch) -> None:
    """On SwiftShader, which Chromium has, since Dawn finds Debian's Mesa too old."""
    swiftshader.adapter()
    monkeypatch.setenv("LACEWING_WEBGPU", "dawn")
    (found,) = candidates()
    assert found.facts.name.startswith("SwiftShader") and found.facts.name.endswith("(Vulkan through Dawn)") and not found.auto
    monkeypatch.setenv("LACEWING_WEBGPU", "wgpu")
    assert not any("Dawn" in each.facts.name for each in candidates())


@pytest.mark.slow
@pytest.mark.browser
def test_backends_says_which() -> None:
    code = "import sys; sys.argv = ['lacewing', 'backends']; from lacewing.cli import main; main()"
    driver = swiftshader.DRIVER
    variables = os.environ | {"VK_DRIVER_FILES": driver, "VK_ICD_FILENAMES": driver, "LACEWING_WEBGPU": "dawn"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables, timeout=120)
    assert done.returncode == 0 and "SwiftShader" in done.stdout and "(Vulkan through Dawn)" in done.stdout
