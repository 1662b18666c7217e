"""Native code of the kernels: compiled once per machine (compiling.py), kept as object files, loaded through llvmlite.

A later start imports no Numba: it reads the objects of the kernels it needs and takes their addresses. A kernel is named
`module.function` after its place under `kernels/`; all have the C signature void(int64, int64, int64, int64).

A cached file is an object and the SHA-256 of its bytes: a full disk or a crash can leave files that are cut off or empty.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from threading import Lock

import llvmlite
import llvmlite.binding as llvm

from lacewing.backends.cpu.compiling import compile_objects, symbol
from lacewing.backends.cpu.isa import host_isa, target_machine
from lacewing.options import Progress
from lacewing.paths import cache_dir

DIGEST_BYTES = 32  # of SHA-256

OLD_SECONDS = 60 * 24 * 3600
_engine_lock = Lock()
_addresses: dict[str, int] = {}


@cache
def object_folder() -> Path:
    """Where the objects lie: one folder for each state of the kernel sources, compiler and CPU."""
    isa = host_isa()
    key = hashlib.sha256(f"{llvmlite.__version__} {version('numba')} {isa} {llvm.get_host_cpu_name()}".encode())
    key.update(llvm.get_host_cpu_features().flatten().encode())
    here = Path(__file__).parent
    quants = here.parent.parent / "quants"  # their tables become part of kernels
    sources = [
        here / "isa.py",
        here / "compiling.py",
        here / "arguments.py",
        *(here / "kernels").rglob("*.py"),
        *quants.glob("*.py"),
        *quants.glob("*.npz"),
    ]
    for source in sorted(sources):
        key.update(source.relative_to(quants.parent).as_posix().encode() + source.read_bytes())
    return cache_dir() / "kernels" / f"{isa.name}-{key.hexdigest()[:16]}"


@cache
def _engine() -> llvm.ExecutionEngine:
    machine = target_machine()
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)


def load(names: Iterable[str], progress: Progress | None = None) -> dict[str, int]:
    """Addresses of kernels by name; those not in the cache are compiled first, which `progress` is told of."""
    with _engine_lock:
        wanted = list(dict.fromkeys(names))
        fresh = [name for name in wanted if name not in _addresses]
        codes = {name: code for name in fresh if (code := _cached(name)) is not None}
        missing = [name for name in fresh if name not in codes]
        if missing:
            _compile(missing, codes, progress)
        for code in codes.values():
            _engine().add_object_file(llvm.ObjectFileRef.from_data(code))
        if fresh:
            _engine().finalize_object()
        for name in fresh:
            _addresses[name] = _engine().get_function_address(symbol(name))
        return {name: _addresses[name] for name in wanted}


def _compile(missing: list[str], codes: dict[str, bytes], progress: Progress | None) -> None:
    """Adds the objects of `missing` to `codes` and to the cache. `progress` may raise to give up; what is done is kept."""
    have = len(codes)

    def tell() -> None:
        if progress:
            progress("compiling kernels", len(codes) - have, len(missing))

    def keep(name: str, code: bytes) -> None:
        codes[name] = code
        _store(name, code)
        tell()

    tell()
    compile_objects(missing, keep, tell)


def _cached(name: str) -> bytes | None:
    """The object of a kernel, or None where there is no whole one."""
    try:
        content = (object_folder() / f"{name}.o").read_bytes()
    except OSError:
        return None
    code = content[:-DIGEST_BYTES]
    return code if hashlib.sha256(code).digest() == content[-DIGEST_BYTES:] else None


def _store(name: str, code: bytes) -> None:
    """Keep an object for the next start. Where the cache cannot be written, the next start compiles again."""
    folder = object_folder()
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            _remove_old(folder.parent)
        handle, partial = tempfile.mkstemp(dir=folder, prefix=".partial-")
    except OSError:
        return
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(code + hashlib.sha256(code).digest())
        os.replace(partial, folder / f"{name}.o")
    except OSError:
        Path(partial).unlink(missing_ok=True)


def _remove_old(kernels: Path) -> None:
    """Folders of sources or CPUs that no start has used for long."""
    for folder in kernels.iterdir():
        if time.time() - folder.stat().st_mtime > OLD_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
