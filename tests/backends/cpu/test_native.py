"""The cache of compiled kernels: found again, made again where sources changed or a file is damaged, and done without."""

import os
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest

from lacewing.backends.cpu import compiling, native

KERNEL = "gemm.rows.gather"  # a small one


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of an own folder, and a process that has loaded nothing yet."""
    monkeypatch.setenv("LACEWING_CACHE", str(tmp_path))
    native.object_folder.cache_clear()
    _forget(monkeypatch)
    yield tmp_path
    native.object_folder.cache_clear()


def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    # the process's own engine must live on: the addresses of other tests point into it
    monkeypatch.setattr(native, "_engine", cache(native._engine.__wrapped__))
    monkeypatch.setattr(native, "_addresses", {})


def compiled(monkeypatch: pytest.MonkeyPatch, name: str = KERNEL) -> list[str]:
    """Load a kernel as a new process would; the kernels that had to be compiled for it."""
    _forget(monkeypatch)
    made: list[str] = []
    compile_object = compiling.compile_object
    with monkeypatch.context() as patched:
        patched.setattr(compiling, "compile_object", lambda name: made.append(name) or compile_object(name))
        assert native.load([name])[name] > 0
    return made


def test_compiled_once_and_progress_is_told(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int, int]] = []
    addresses = native.load([KERNEL, KERNEL], lambda *args: told.append(args))
    assert list(addresses) == [KERNEL] and told == [("compiling kernels", 0, 1), ("compiling kernels", 1, 1)]
    assert native.load([KERNEL], lambda *args: told.append(args)) == addresses and len(told) == 2
    assert compiled(monkeypatch) == []
    assert [path.name for path in fresh.rglob("*") if path.is_file()] == [f"{KERNEL}.o"]


@pytest.mark.parametrize("damage", ["cut", "empty", "short", "bit", "added", "folder"])
def test_a_damaged_file_is_compiled_again(damage: str, fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert compiled(monkeypatch) == [KERNEL]
    path = native.object_folder() / f"{KERNEL}.o"
    whole = path.read_bytes()
    if damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1
        path.write_bytes({"cut": whole[:-1000], "empty": b"", "short": whole[:20], "bit": flipped, "added": whole + b"x"}[damage])
    assert compiled(monkeypatch) == [KERNEL]
    if damage != "folder":
        assert compiled(monkeypatch) == []


def test_a_cache_that_cannot_be_written_is_done_without(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fresh / "kernels").write_text("a file where the folder should be")
    assert compiled(monkeypatch) == [KERNEL]
    assert compiled(monkeypatch) == [KERNEL]


def test_a_full_disk_leaves_nothing_behind(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        assert compiled(monkeypatch) == [KERNEL]
    assert [path for path in fresh.rglob("*") if path.is_file()] == []


def test_the_folder_changes_with_the_sources(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = native.object_folder()
    read_bytes = Path.read_bytes
    for changed in ("instructions.py", "isa.py", "compiling.py", "grids.npz", "iq4_nl.py"):
        with monkeypatch.context() as patched:
            patched.setattr(Path, "read_bytes", lambda path, name=changed: read_bytes(path) + (b"#" if path.name == name else b""))
            native.object_folder.cache_clear()
            assert native.object_folder() != before, changed
    native.object_folder.cache_clear()
    assert native.object_folder() == before


def test_a_warm_start_imports_no_numba(tmp_path: Path) -> None:
    code = (
        "import sys; from lacewing.backends.cpu import native; native.load(['gemm.rows.gather']); "
        "print(sorted(name for name in sys.modules if name.split('.')[0] == 'numba'))"
    )
    environment = os.environ | {"LACEWING_CACHE": str(tmp_path)}
    cold, warm = (subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True) for _ in range(2))
    assert "numba.core" in cold.stdout and warm.stdout == "[]\n", warm.stderr


def test_folders_of_old_sources_go(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = native.object_folder().parent
    old, recent = kernels / "avx2-0123456789abcdef", kernels / "avx2-fedcba9876543210"
    for folder in (old, recent):
        folder.mkdir(parents=True)
    past = time.time() - native.OLD_SECONDS - 60
    os.utime(old, (past, past))
    native.load([KERNEL])
    assert not old.exists() and recent.exists() and native.object_folder().is_dir()
