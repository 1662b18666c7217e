"""Rows of activations for the host: the hidden states that the output head reads."""

from __future__ import annotations

from typing import Any

import numpy as np

from lacewing.backends.gpu.arena import Place
from lacewing.backends.webgpu.device.device import Device
from lacewing.backends.webgpu.device.raw import Readback, Recorder
from lacewing.program.program import Program


def head_width(program: Program) -> int:
    """Values of a row that the output head reads; 0 where there is none."""
    return 0 if program.head is None else program.head.x.width


def read_rows(device: Device, readback: Readback, arena: Any, place: Place, rows: np.ndarray, width: int) -> np.ndarray:
    """Float32 (R, width): these rows of a place, as the last submission leaves them; as many at a time as `readback` holds."""
    found = np.empty((len(rows), width), np.float32)
    most = readback.size // (4 * width)
    for first in range(0, len(rows), most):
        some, recorder = rows[first : first + most].tolist(), Recorder(device.device)
        for at, row in enumerate(some):
            readback.copy(recorder, arena, 4 * (place.base + row * place.stride), 4 * width, 4 * width * at)
        size = 4 * width * len(some)
        with readback.mapped(size, recorder.submit()) as values:
            found[first : first + len(some)] = np.frombuffer(values, np.float32).reshape(-1, width)
    return found
