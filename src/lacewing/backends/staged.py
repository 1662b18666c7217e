"""The contract of a step over one part of a split program (`program.split`): it runs stage by stage, others run in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from lacewing.errors import BackendError
from lacewing.program.ops import Op, Receive, Send, View
from lacewing.program.program import Program


@runtime_checkable
class Staged(Protocol):
    """Every step of a program that begins with a `Receive` is one; then `run` is not for use."""

    def begin(self, tokens: np.ndarray, slots: np.ndarray, positions: np.ndarray, outputs: np.ndarray) -> None:
        """What the stages of the run that begins now are about; as for `Step.run`, with the same errors."""
        ...

    def stage(self, index: int, received: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run a stage, each once and in their order, but for those left out (`hot.rests`). `received`: float32 (T, width) of each
        view of its `Receive`.

        Returns the same of its `Send`, valid until the next call. The bytes matter: some columns hold integers.
        """
        ...

    def logits(self) -> np.ndarray:
        """Float32 (R, V), after the stage that makes them; valid until the next run."""
        ...


def stages(program: Program) -> list[tuple[tuple[View, ...], list[Op], tuple[View, ...]]]:
    """What each stage receives, does and sends. A program that is not split is one stage."""
    found: list[tuple[tuple[View, ...], list[Op], tuple[View, ...]]] = []
    for op in program.ops:
        if isinstance(op, Receive):
            found.append((op.outs, [], ()))
        elif isinstance(op, Send):
            found[-1] = (*found[-1][:2], op.xs)
        else:
            if not found:
                found.append(((), [], ()))
            found[-1][1].append(op)
    return found


def not_alone() -> BackendError:
    """Somebody called `run` of a part."""
    return BackendError("a part of a program runs in stages; run the whole")
