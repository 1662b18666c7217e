"""What goes wrong on a device, as errors of ours.

wgpu raises for calls through its classes. Errors of raw calls reach a callback of wgpu-py, which gives them to the innermost call
that captures errors in this thread, or writes them to its log: `Guard` captures them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType

from wgpu.backends.wgpu_native._api import error_handler

from lacewing.errors import BackendError, DeviceLostError, LacewingError, OutOfMemoryError

LOST = "the GPU was lost ({reason}): its driver was reset, or it was unplugged; load the model again, or use `backend='cpu'`"
_FULL = ("out of memory", "not enough memory")  # unlike the memory of a workgroup, which a kernel may want too much of
_LOG = ("DEVICE LOST!", "The WGPU device was lost")


class Guard:
    """Raises what raw calls inside report. `on_loss` is called when the device is gone."""

    def __init__(self, what: str, on_loss: Callable[[], None] = lambda: None):
        self._what, self._on_loss = what, on_loss

    def __enter__(self) -> None:
        error_handler.capture("lacewing")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        found = error_handler.release("lacewing")
        if found is not None and error is None:
            raise fault(self._what, str(found[1]), str(found[0]), self._on_loss)


def fault(what: str, message: str, kind: str = "", on_loss: Callable[[], None] = lambda: None) -> LacewingError:
    """The error for a person, from wgpu's words. `what` continues "the GPU refused"."""
    reason = reason_of(message)
    if "device is lost" in message or "device lost" in message.lower():
        on_loss()
        return DeviceLostError(LOST.format(reason=reason))
    if "OutOfMemory" in kind or any(words in message.lower() for words in _FULL):
        return OutOfMemoryError(f"the GPU has no memory left for {what}; use a smaller `context` or quant, or `backend='cpu'`")
    return BackendError(f"the GPU refused {what}: {reason}; `backend='cpu'` works without it")


def reason_of(message: str) -> str:
    """The line of wgpu's that names the cause: the first of a syntax error, else the last."""
    lines = [line.strip() for line in message.splitlines()]
    lines = [line for line in lines if line and not line.startswith(("Caused by", "In wgpu"))]
    return next((line for line in lines if " parsing error: " in line), lines[-1] if lines else "it does not say why")


class _Quiet(logging.Filter):
    """A loss is raised by the next call; wgpu's shouting about it is left out."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(_LOG)


logging.getLogger("wgpu").addFilter(_Quiet())
