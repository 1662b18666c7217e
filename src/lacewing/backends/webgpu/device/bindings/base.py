"""What the backend asks of a library that implements WebGPU: wgpu-native, which is always there, or Dawn.

Both are driven through the same C functions (webgpu.h) and through Python classes of the same names. A Binding has what differs:
how errors are heard, how the end of work is waited for, and how shaders are made without checks.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Any

MAPPED = 1  # status of a mapping that is there
interrupts: list[BaseException] = []  # raised in a callback, from which nothing can be raised


def heard(kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
    """Keeps what was raised in a callback, Ctrl-C in the main thread, for `raise_interrupts`."""
    if error is not None:
        interrupts.append(error)


def raise_interrupts() -> None:
    """In the main thread: what a callback has heard."""
    if interrupts and threading.current_thread() is threading.main_thread():
        raise interrupts.pop()


class Mapping(ABC):
    """The way to a buffer's bytes for the host: `start`, then `advance` until it `ended`."""

    status = 0  # MAPPED for success, another number for a failure, 0 while there is none

    @abstractmethod
    def start(self, size: int) -> None:
        """Ask for the first `size` bytes."""

    @property
    @abstractmethod
    def ended(self) -> bool:
        """Whether the status is there, or there will be none."""

    @abstractmethod
    def advance(self, sleep: bool, index: int | None) -> None:
        """Hear of what has ended. `sleep`: until submission `index` has, None: all of them; an interrupt is heard meanwhile."""


class Binding(ABC):
    """One library. `ffi` and `lib`: its C functions, for the handles in `_internal` of its classes."""

    name: str
    title: str  # as `lacewing backends` says it
    ffi: Any
    lib: Any

    @abstractmethod
    def adapters(self, interfaces: Sequence[str]) -> list[Any]:
        """What it shows through these interfaces: Vulkan, Metal, DX12, GL. May raise what the library raises."""

    @abstractmethod
    def features(self, gpu: Any) -> frozenset[str]:
        """The features of an adapter, by wgpu-native's names; "subgroup-matrix" for matrix units."""

    def has_units(self, gpu: Any) -> bool:
        """Whether an adapter's matrix units multiply squares of 16 x 16 float16 numbers, with float32 sums."""
        return False

    @abstractmethod
    def open(self, gpu: Any, features: Sequence[str], checked: bool) -> Any:
        """A device with these of its features. `checked`: shaders check bounds. May raise what the library raises."""

    @abstractmethod
    def module(self, device: Any, code: str, label: str, checked: bool) -> Any:
        """A shader module of such a device; without checks, `code` must have passed the checked way in tests."""

    @abstractmethod
    def capture(self) -> None:
        """Begin to keep errors of this thread, until `release`."""

    @abstractmethod
    def release(self) -> tuple[str, str] | None:
        """Kind and words of an error since `capture`."""

    def encoder(self, device: Any) -> Any:
        """The handle of a new command encoder."""
        return self.lib.wgpuDeviceCreateCommandEncoder(device._internal, self.ffi.NULL)

    def finish(self, encoder: Any) -> Any:
        """The handle of its commands."""
        return self.lib.wgpuCommandEncoderFinish(encoder, self.ffi.NULL)

    @abstractmethod
    def submit(self, device: Any, queue: Any, commands: Any) -> int:
        """Hand a command buffer (handles) to the device; the number of the submission."""

    @abstractmethod
    def wait(self, device: Any, index: int | None) -> None:
        """Until submission `index` is done, None: everything that was submitted. What was freed is given back meanwhile."""

    @abstractmethod
    def idle(self, device: Any) -> bool:
        """Whether the device has nothing left to do."""

    @abstractmethod
    def mapping(self, device: Any, buffer: Any, writing: bool) -> Mapping:
        """The way to a buffer of the device's, again and again."""

    @abstractmethod
    def tick_nanoseconds(self, device: Any) -> float:
        """Of the device's clock."""
