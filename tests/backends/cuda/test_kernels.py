"""Kernels without a GPU: what they declare, and that they compile; the compiled ones are kept on disk."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from lacewing.backends.cuda.device import compiling
from lacewing.backends.cuda.device.compiling import machine_code, supported
from lacewing.backends.cuda.kernels import Kernel, kernel, kernels
from lacewing.errors import BackendError

ARCHES = ("75", "80", "86", "89", "90", "100", "120")


def arches(one: Kernel) -> list[str]:
    return [arch for arch in ARCHES if one.runs_on(arch)]


@pytest.mark.parametrize("name", kernels())
def test_a_kernel_compiles(name: str) -> None:
    """In one form for the least architecture that it is for and those that it names; `slow` has all forms and architectures."""
    one = kernel(name)
    number = zlib.crc32(name.encode())
    variants, there = list(one.variants()), arches(one)
    for index, arch in enumerate(dict.fromkeys([there[0], *(each[:-1] for each in one.arches if each[-1] == "a")])):
        assert machine_code(one, variants[(number + index) % len(variants)], arch)[:4] == b"\x7fELF"


@pytest.mark.parametrize("quant", kernel("pack").macros["QUANT"])
def test_every_quant_is_read(quant: str) -> None:
    machine_code(kernel("pack"), {"QUANT": quant}, "75")


@pytest.mark.slow
@pytest.mark.parametrize("name", kernels())
def test_a_kernel_compiles_in_every_form_for_every_architecture(name: str) -> None:
    one = kernel(name)
    for macros in one.variants():
        for arch in arches(one):
            machine_code(one, macros, arch)


@pytest.mark.parametrize("name", kernels())
def test_a_kernel_that_starts_early_waits(name: str) -> None:
    """And none that does not say so. Who may start early lets the next one start early too."""
    one = kernel(name)
    assert ("wait_before();" in one.text) == one.early
    assert "start_after();" in one.text or not one.early


def test_architectures() -> None:
    assert set(ARCHES) <= supported()
    one = replace(kernel("rope"), arches=("80", "90a"))
    assert [arch for arch in ARCHES if one.runs_on(arch)] == ["80", "86", "89", "90", "100", "120"]
    assert one.target("90") == "sm_90a" and one.target("100") == "sm_100"
    only = replace(one, arches=("90a",))
    assert arches(only) == ["90"] and kernel("rope").target("75") == "sm_75"


def test_a_kernel_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    code = machine_code(kernel("copy"), {}, "80")
    monkeypatch.setattr(compiling, "compiled", lambda *_: pytest.fail("it was there"))
    assert machine_code(kernel("copy"), {}, "80") == code


@pytest.mark.parametrize("harm", [lambda code: b"", lambda code: code[:100], lambda code: code[:200] + b"?" + code[201:]])
def test_a_damaged_file_is_compiled_anew(harm: Callable[[bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the machine lost power over, or whose bytes the disk has changed; the new one takes its place."""
    monkeypatch.setenv("LACEWING_CACHE", str(tmp_path))
    compiled = iter([b"\x7fELF" + bytes(400), b"anew", b"too often"])
    monkeypatch.setattr(compiling, "compiled", lambda *_: next(compiled))
    machine_code(kernel("copy"), {}, "80")
    (file,) = (tmp_path / "cuda").iterdir()
    file.write_bytes(harm(file.read_bytes()))
    assert [machine_code(kernel("copy"), {}, "80") for _ in range(2)] == [b"anew"] * 2
    assert [*(tmp_path / "cuda").iterdir()] == [file]


def test_another_build_of_the_compiler_compiles_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NVRTC itself tells no more than 13.5; its wheel is 13.5.37."""
    monkeypatch.setenv("LACEWING_CACHE", str(tmp_path))
    compiled = iter([b"one", b"two"])
    monkeypatch.setattr(compiling, "compiled", lambda *_: next(compiled))
    found = []
    for build in ("13.5.37", "13.5.40"):
        monkeypatch.setattr(metadata, "version", lambda name, build=build: build if name == "nvidia-cuda-nvrtc" else "")
        compiling.build.cache_clear()
        found.append(machine_code(kernel("copy"), {}, "80"))
    compiling.build.cache_clear()
    assert found == [b"one", b"two"]


def test_other_words_are_compiled_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    machine_code(kernel("copy"), {}, "80")
    asked = []
    monkeypatch.setattr(compiling, "compiled", lambda source, name, options: asked.append(options) or b"new")
    changed = replace(kernel("copy"), text=kernel("copy").text + "\n// another line\n")
    assert machine_code(changed, {}, "80") == b"new" and machine_code(kernel("copy"), {}, "86") == b"new"
    assert len(asked) == 2


def test_what_a_kernel_does_not_declare_is_refused() -> None:
    with pytest.raises(BackendError, match="the kernel embed has no QUANT Q9"):
        kernel("embed").source({"QUANT": "Q9"})
    with pytest.raises(BackendError, match="the kernel rope has no macro QUANT"):
        kernel("rope").source({"QUANT": "Q4_K"})


def test_the_compilers_words_are_told() -> None:
    with pytest.raises(BackendError, match=r"NVRTC cannot compile the kernel wrong\.cu .*identifier \"nonsense\" is undefined"):
        compiling.compiled("__global__ void wrong() { nonsense; }", "wrong.cu", ("--gpu-architecture=sm_80",))
