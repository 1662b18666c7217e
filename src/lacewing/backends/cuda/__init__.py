"""NVIDIA GPUs through CUDA's driver, with our own kernels that NVRTC compiles at run time. Needs the extra `lacewing[cuda]`."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

from lacewing.backends.base import Candidate, ModelRequirements, NoDeviceError
from lacewing.errors import BackendError, first_line, install_extra

if TYPE_CHECKING:
    from lacewing.backends.cuda.backend import CudaBackend

ABSENT = "this machine has no NVIDIA GPU"


def open(threads: int | None = None, adapter: str | int | None = None, required: ModelRequirements | None = None) -> CudaBackend:
    """`adapter`: index or name; None: the first. `required`: only a GPU that `auto` takes for that model, unless `adapter` names
    one. `threads` is ignored.

    Raises NoDeviceError where there is no NVIDIA GPU (with `required` no library is loaded then), BackendError where none suits or
    the extra is missing; OptionError for an unknown GPU; UnsupportedModelError for a model that has what this backend lacks.
    """
    _load(required is not None)
    from lacewing.backends.cuda.backend import CudaBackend, check
    from lacewing.backends.cuda.device.devices import choose_gpu, gpus, judge, shared

    if required is None or adapter is not None:
        chosen = choose_gpu(adapter)
        return CudaBackend(shared(chosen), chosen.facts())
    check(required.program, required.weights)
    refused, found = [], gpus()
    for needed in dict.fromkeys((required.nbytes, required.nbytes if required.min_nbytes is None else required.min_nbytes)):
        judged = [(each, *judge(each, needed)) for each in found]
        for each, suits, _ in judged:
            if suits:
                return CudaBackend(shared(each), each.facts())
        refused = [f"{each.name}: {reason}" for each, _, reason in judged]
    raise BackendError("; ".join(refused))


def candidates(needed_bytes: int | None = None) -> list[Candidate]:
    """Every NVIDIA GPU. Raises BackendError where there is none, or the extra is missing."""
    _load(True)
    from lacewing.backends.cuda.device.devices import candidates

    return candidates(needed_bytes)


def _load(look_first: bool) -> None:
    """Raises NoDeviceError where no NVIDIA GPU is seen, if that is asked first or the extra is missing too; BackendError."""
    from lacewing.backends.cuda.device.hardware import hardware

    if (look_first or sys.platform == "darwin") and not hardware():  # no extra helps there
        raise NoDeviceError(ABSENT)
    for name in ("cuda.bindings.driver", "cuda.bindings.nvrtc"):
        try:
            importlib.import_module(name)
        except (ImportError, OSError, RuntimeError) as error:
            if not hardware():
                raise NoDeviceError(ABSENT) from error
            raise BackendError(
                f"the CUDA backend needs an extra ({first_line(error)}); install it: {install_extra('cuda')}"
            ) from error
