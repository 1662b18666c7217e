"""Kernels compiled at run time by NVRTC to machine code for one architecture, and kept on disk.

A file is named by the hash of all that decides what is in it: source, options, architecture and the compiler's build. Its own hash
stands at its end: one that is damaged is compiled anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from lacewing.backends.cuda.kernels import Kernel, Macros
from lacewing.errors import BackendError, first_line
from lacewing.paths import cache_dir

_WORDS = 2000  # characters of the compiler's words in an error
_DIGEST = hashlib.sha256().digest_size


def machine_code(kernel: Kernel, macros: Macros, arch: str) -> bytes:
    """The cubin of a kernel for a device of compute capability `arch`, from the cache if it is there. Raises BackendError."""
    source = kernel.source(macros)
    options = (f"--gpu-architecture={kernel.target(arch)}", "--std=c++17", *kernel.defines(macros))
    key = "\0".join((source, *options, version(), build()))
    path = _folder() / f"{hashlib.sha256(key.encode()).hexdigest()}.cubin"
    kept = _kept(path)
    if kept is not None:
        return kept
    code = compiled(source, f"{kernel.name}.cu", options)
    _keep(path, code)
    return code


def compiled(source: str, name: str, options: tuple[str, ...]) -> bytes:
    """The cubin of a source, without the cache. Raises BackendError with the compiler's words."""
    nvrtc = _nvrtc()
    program = _checked(nvrtc.nvrtcCreateProgram(source.encode(), name.encode(), 0, [], []))
    try:
        (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            log = bytearray(_checked(nvrtc.nvrtcGetProgramLogSize(program)))
            _checked(nvrtc.nvrtcGetProgramLog(program, log))
            words = bytes(log).decode(errors="replace").strip(" \0\n")[:_WORDS]
            raise BackendError(f"NVRTC cannot compile the kernel {name} ({' '.join(options)}): {words}")
        code = bytearray(_checked(nvrtc.nvrtcGetCUBINSize(program)))
        _checked(nvrtc.nvrtcGetCUBIN(program, code))
        return bytes(code)
    finally:
        nvrtc.nvrtcDestroyProgram(program)


@cache
def version() -> str:
    """Of the compiler."""
    major, minor = _checked(_nvrtc().nvrtcVersion())
    return f"NVRTC {major}.{minor}"


@cache
def build() -> str:
    """Of the compiler's package, whose builds compile differently under one `version`; empty if the compiler came without it."""
    try:
        return metadata.version("nvidia-cuda-nvrtc")
    except metadata.PackageNotFoundError:
        return ""


@cache
def supported() -> frozenset[str]:
    """The architectures that the compiler knows, such as "90"."""
    return frozenset(str(arch) for arch in _checked(_nvrtc().nvrtcGetSupportedArchs()))


@cache
def _nvrtc() -> Any:
    """Raises BackendError where its library is missing: cuda-bindings looks for it at the first call."""
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()
    except Exception as error:  # of several kinds of its own
        raise BackendError(f"the compiler NVRTC cannot be loaded ({first_line(error)}); install `lacewing[cuda]` anew") from error
    return nvrtc


def _checked(result: tuple[Any, ...]) -> Any:
    status, *values = result
    if int(status):
        raise BackendError(f"NVRTC refused a call: {status.name}; install `lacewing[cuda]` anew")
    return values[0] if len(values) == 1 else tuple(values)


def _folder() -> Path:
    return cache_dir() / "cuda"


def _kept(path: Path) -> bytes | None:
    """What `_keep` wrote; None if it is not there whole."""
    try:
        found = path.read_bytes()
    except OSError:
        return None
    code, digest = found[:-_DIGEST], found[-_DIGEST:]
    return code if hashlib.sha256(code).digest() == digest else None


def _keep(path: Path, code: bytes) -> None:
    """Whole or not at all: another process may look for it now. Where nothing can be written it is compiled again the next time."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, made = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(code + hashlib.sha256(code).digest())
            os.replace(made, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(made)
            raise
