"""The contract of a step over one part of a split program (`offload.cut`): it runs stage by stage, others run in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from lacewing.backends.base import WeightView
from lacewing.errors import BackendError
from lacewing.program.ops import Op, Receive, Send, View
from lacewing.program.program import Program
from lacewing.quants.base import Quant


@runtime_checkable
class Staged(Protocol):
    """Every step of a program that begins with a `Receive` is one; then `run` is not for use."""

    def begin(self, tokens: np.ndarray, slots: np.ndarray, positions: np.ndarray, outputs: np.ndarray) -> None:
        """What the stages of the run that begins now are about; as for `Step.run`, with the same errors."""
        ...

    def stage(self, index: int, received: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run a stage, each once and in their order, but for those skipped (`offload.cache.skippable_stages`). `received`: float32
        (T, width) of each view of its `Receive`.

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


class ResidentExperts:
    """Some experts of a weight (E, ...), in their order; `backends.base.WeightView`. It has no factors of blocks."""

    scales: WeightView | None = None
    scale_block = (1, 1)
    tiled: np.ndarray | None = None

    def __init__(self, name: str, weight: WeightView, experts: Sequence[int]):
        if weight.scales is not None:
            raise BackendError(f"experts of {weight.name} cannot be held apart from their factors")
        self.name, self._weight, self._experts = name, weight, tuple(experts)
        self.shape: tuple[int, ...] = (len(self._experts), *weight.shape[1:])
        self.quant: Quant = weight.quant

    @property
    def parts(self) -> list[np.ndarray]:
        all_of_them = members(self._weight)
        return [all_of_them[expert] for expert in self._experts]

    @property
    def data(self) -> np.ndarray:
        return np.concatenate(self.parts)


def members(weight: WeightView) -> list[np.ndarray]:
    """uint8: the bytes of what stands at each index of the first axis, such as an expert."""
    parts = weight.parts
    if len(parts) == weight.shape[0]:
        return [part.reshape(-1) for part in parts]
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return list(whole.reshape(weight.shape[0], -1))


@dataclass(frozen=True)
class SwapIn:
    """An expert that comes to a place; `weights`: of each stack, by the program's name, that one expert (1, ...)."""

    place: int
    weights: Mapping[str, WeightView]


@runtime_checkable
class TakesExperts(Protocol):
    """A step whose stacks of resident experts can be written between two runs."""

    def put_experts(self, swaps: Sequence[SwapIn], begin: Callable[[], None]) -> None:
        """`begin` is called when nothing but the writing can fail any more. Raises OutOfMemoryError, BackendError."""
        ...
