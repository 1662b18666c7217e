"""Compile checks the weights; a step walks the ops. Every op is one function of `ops.py`."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence

import numpy as np

from lacewing.backends.base import Backend, DeviceFacts
from lacewing.backends.batch import Batch, StepLimits
from lacewing.backends.reference import attention as attention  # its rules, and those of recurrent
from lacewing.backends.reference import recurrent as recurrent
from lacewing.backends.reference import streams as streams
from lacewing.backends.reference.ops import RULES
from lacewing.backends.reference.state import State
from lacewing.backends.reference.weights import Weights
from lacewing.backends.stages import is_part, not_alone, stages
from lacewing.backends.step import RoutedLayer, Step
from lacewing.backends.weights import WeightView
from lacewing.errors import WeightError
from lacewing.options import Progress
from lacewing.program.operands import View
from lacewing.program.program import Program

CACHE_BYTES = 2**31  # of dequantised weights


class ReferenceBackend(Backend):
    """`exact`: states are kept in float32; else rounded to the precision of their parts, as other backends store them."""

    name = "reference"
    copies_weights = False

    def __init__(self, exact: bool = True, cache_bytes: int = CACHE_BYTES):
        self.exact, self.cache_bytes = exact, cache_bytes

    def facts(self) -> DeviceFacts:
        name = platform.processor() or platform.machine()
        return DeviceFacts(self.name, name, threads=1, features=(f"numpy {np.__version__}",), memory_bytes=None)

    def compile(
        self, program: Program, weights: Mapping[str, WeightView], limits: StepLimits, progress: Progress | None = None
    ) -> ReferenceStep:
        for name, shape in program.weights.items():
            if name not in weights:
                raise WeightError(f"weight {name} is missing")
            if tuple(weights[name].shape) != tuple(shape):
                raise WeightError(f"weight {name} has shape {tuple(weights[name].shape)}; the program needs {tuple(shape)}")
        for stage in stages(program):
            for op in stage.ops:
                RULES[op]
        return ReferenceStep(program, weights, limits, self.exact, self.cache_bytes)


class ReferenceStep(Step):
    """A program ready to run."""

    def __init__(self, program: Program, weights: Mapping[str, WeightView], limits: StepLimits, exact: bool, cache_bytes: int):
        super().__init__(program, limits)
        self.state = State(program, Weights(weights, cache_bytes), limits, exact)
        widths = {view.buffer.name: view.buffer.width for op in program.ops for view in op.views}
        self.buffer_bytes = 4 * limits.chunk * sum(widths.values())
        self.stages = stages(program)

    def _run(self, batch: Batch) -> np.ndarray:
        if is_part(self.program):
            raise not_alone()
        self._begin(batch)
        self._stage(0, ())
        return self.state.logits

    def _begin(self, batch: Batch) -> None:
        self.state.begin(batch)

    def _stage(self, index: int, received: Sequence[np.ndarray]) -> list[np.ndarray]:
        stage = self.stages[index]
        for view, values in zip(stage.received, received, strict=True):
            self.state.view(view)[:] = values
        with np.errstate(all="ignore"):  # infinities and NaN go their way into the logits, where the engine looks for them
            for op in stage.ops:
                self._stop_if_aborted()
                RULES[op](self.state, op)
        return [self.state.view(view).copy() for view in stage.sent]

    def logits(self) -> np.ndarray:
        with self._turn(keep_abort=True):
            return self.state.logits

    def _hidden(self, view: View, which: np.ndarray) -> np.ndarray:
        return np.asarray(self.state.view(view)[which])

    def watch_routes(self, on: bool) -> None:
        with self._turn(keep_abort=True):
            self.state.watched = [] if on else None

    def routes(self) -> list[RoutedLayer]:
        with self._turn(keep_abort=True):
            return list(self.state.watched or ())

    def rebind(self) -> None:
        with self._turn(keep_abort=True):
            self.state.weights.forget()

    @property
    def state_bytes(self) -> int:
        """As they are kept, in float32."""
        return sum(store.nbytes for group in self.state.stores for parts in group for store in parts)

    def _grow(self, group: int, count: int) -> None:
        self.state.grow(group, count)

    def _put_table(self, group: int, row: int, first: int, ids: np.ndarray) -> None:
        self.state.tables[group][row, first : first + len(ids)] = ids

    def _copy(self, group: int, pairs: Sequence[tuple[int, int]], positions: int) -> None:
        for parts in self.state.stores[group]:
            for store in parts:
                for source, to in pairs:
                    store[to] = store[source]

    def _read(self, group: int, ids: Sequence[int]) -> np.ndarray:
        return self.state.read(group, ids)

    def _write(self, group: int, ids: Sequence[int], data: np.ndarray) -> None:
        self.state.write(group, ids, data)

    def _close(self) -> None:
        self.state.stores.clear()
        self.state.weights.forget()
        self.state.weights.weights = {}
