"""What the driver's calls make of errors, without a driver: of each call, and of each error that no call recovers from."""

from __future__ import annotations

import inspect
import threading
from typing import Any

import pytest
from cuda.bindings.driver import CUresult

from lacewing.backends.cuda.device.driver import FATAL, Driver
from lacewing.errors import BackendError, DeviceLostError

CONTEXT = 7
CALLS = {name for name, what in vars(Driver).items() if inspect.isfunction(what) and not name.startswith("_")}
NOT_OF_THE_DEVICE = {"loss", "drop_capture", "open", "release"}


class Failing:
    """Bindings whose calls all fail."""

    def __init__(self, status: CUresult):
        self._status = status

    def __getattr__(self, name: str) -> Failing:
        return self

    def __call__(self, *_: Any) -> tuple[CUresult]:
        return (self._status,)


def failing(status: str) -> Driver:
    made = Driver.__new__(Driver)
    made._cu, made._capture, made._early = Failing(getattr(CUresult, status)), None, None
    made._here, made._losses = threading.local(), {}
    made._here.context = CONTEXT
    return made


def call(driver: Driver, name: str) -> None:
    method = getattr(driver, name)
    names = [each.name for each in inspect.signature(method).parameters.values() if each.default is each.empty]
    method(*((1, 1, 1) if each == "grid" else 1 for each in names))


@pytest.mark.parametrize("name", sorted(CALLS - NOT_OF_THE_DEVICE))
def test_each_call_notices_the_loss(name: str) -> None:
    driver = failing("CUDA_ERROR_ILLEGAL_ADDRESS")
    with pytest.raises(DeviceLostError) as error:
        call(driver, name)
    assert driver.loss(CONTEXT) == str(error.value) and driver.loss(CONTEXT + 1) is None
    other = failing("CUDA_ERROR_INVALID_VALUE")
    with pytest.raises(BackendError, match="CUDA_ERROR_INVALID_VALUE"):
        call(other, name)
    assert other.loss(CONTEXT) is None


def test_a_gpu_that_cannot_be_opened_is_not_the_one_that_was_entered() -> None:
    for status in ("CUDA_ERROR_DEVICE_UNAVAILABLE", "CUDA_ERROR_ECC_UNCORRECTABLE"):
        driver = failing(status)
        driver._device = lambda index: index  # type: ignore[method-assign]
        with pytest.raises(BackendError, match=status):
            driver.open(1)
        assert driver.loss(CONTEXT) is None


def test_a_capture_that_failed_ends_without_another_error() -> None:
    failing("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED").drop_capture(1)


def test_errors_after_which_a_process_must_end() -> None:
    """As the documentation of each error says."""
    said = {each.name for each in CUresult if "process must be terminated" in " ".join((each.__doc__ or "").split())}
    assert "CUDA_ERROR_ILLEGAL_ADDRESS" in said and said <= FATAL <= {each.name for each in CUresult}
