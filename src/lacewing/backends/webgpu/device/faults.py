"""What goes wrong on a device, as errors of ours.

A library raises for calls through its classes. Errors of raw calls reach a callback of the binding: `Guard` captures them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType

from lacewing.backends.webgpu.device.bindings.base import Binding
from lacewing.errors import BackendError, DeviceLostError, LacewingError, OutOfMemoryError

LOST = "the GPU was lost ({reason}): its driver was reset, or it was unplugged; load the model again, or use `backend='cpu'`"
_FULL = ("out of memory", "not enough memory")  # unlike the memory of a workgroup, which a kernel may want too much of
_GONE = ("device is lost", "device lost", "[device] is lost")
_LOG = ("DEVICE LOST!", "The WGPU device was lost")


class Guard:
    """Raises what raw calls inside report in this thread. `on_loss` is called when the device is gone."""

    def __init__(self, binding: Binding, what: str, on_loss: Callable[[], None] = lambda: None):
        self._binding, self._what, self._on_loss = binding, what, on_loss

    def __enter__(self) -> None:
        self._binding.capture()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        found = self._binding.release()
        if found is not None and error is None:
            raise fault(self._what, found[1], found[0], self._on_loss)


def fault(what: str, message: str, kind: str = "", on_loss: Callable[[], None] = lambda: None) -> LacewingError:
    """The error for a person, from the library's words. `what` continues "the GPU refused"."""
    reason = reason_of(message)
    if any(words in message.lower() for words in _GONE):
        on_loss()
        return DeviceLostError(LOST.format(reason=reason))
    if "OutOfMemory" in kind or any(words in message.lower() for words in _FULL):
        return OutOfMemoryError(f"the GPU has no memory left for {what}; use a smaller `context` or quant, or `backend='cpu'`")
    return BackendError(f"the GPU refused {what}: {reason}; `backend='cpu'` works without it")


def reason_of(message: str) -> str:
    """The line that names the cause: the first of a syntax error, else the last of wgpu-native's, the first of Dawn's."""
    lines = [line.strip() for line in message.splitlines()]
    trace = next((at for at, line in enumerate(lines) if line.startswith(("- While ", "at "))), None)  # Dawn's calls, outwards
    lines = [line for line in lines[:trace] if line and not line.startswith(("Caused by", "In wgpu"))]
    syntax = (line for line in lines if " parsing error: " in line or line.startswith("Error while parsing WGSL: "))
    return next(syntax, lines[-1 if trace is None else 0] if lines else "it does not say why")


class _Quiet(logging.Filter):
    """A loss is raised by the next call; wgpu's shouting about it is left out."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(_LOG)


logging.getLogger("wgpu").addFilter(_Quiet())
