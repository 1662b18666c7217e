"""Models cut in two for tests: a backend of two devices for any program, and the cuts that a program allows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lacewing.backends.base import Backend
from lacewing.models import ModelSpec
from lacewing.offload.cut import CutError, cut_program
from lacewing.offload.step import OffloadBackend, OffloadStep
from lacewing.program.program import Program
from tests.models.running import open_step, run

IDS = [7, 300, 12, 55, 256, 9, 81, 4, 200, 33, 17]


def cuts(program: Program) -> Iterator[int]:
    """Every place where a program can be cut in two."""
    for cut in range(1, len(program.ops)):
        try:
            cut_program(program, [0] * cut + [1] * (len(program.ops) - cut))
        except CutError:
            continue
        yield cut


def open_split(
    path: Path, spec: ModelSpec, backends: list[Backend], devices: list[int], context: int = 32, rows: int = 1
) -> OffloadStep:
    """The model of a file with op i on backends[devices[i]]."""
    _, step = open_step(path, context, OffloadBackend(backends, cut_program(spec.program, devices)), rows, chunk=16)
    assert isinstance(step, OffloadStep)
    return step


def mixed_run(step: object) -> np.ndarray:
    """Logits of IDS: a prompt, one token, then the end of the prompt again and more (a prefix that is used again)."""
    first = run(step, IDS[:6])  # type: ignore[arg-type]
    single = run(step, IDS[6:7], 6)  # type: ignore[arg-type]
    again = run(step, IDS[4:], 4)  # type: ignore[arg-type]
    np.testing.assert_allclose(again[:3], np.concatenate([first[4:], single]), rtol=0, atol=2e-4)
    return np.concatenate([first[:4], again])
