"""Compile checks the weights; a step walks the ops. Every op is one function of `ops.py`."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence

import numpy as np

from lacewing.backends.arguments import check_run
from lacewing.backends.base import DeviceFacts, RoutedLayer, StepLimits, WeightView
from lacewing.backends.reference.ops import OPS
from lacewing.backends.reference.state import State
from lacewing.backends.staged import not_alone, stages
from lacewing.errors import OptionError, UnsupportedModelError, WeightError
from lacewing.options import Progress
from lacewing.program.program import Program

CACHE_BYTES = 2**31  # of dequantised weights


class ReferenceBackend:
    """`half_precision`: round keys and values to float16, as other backends store them."""

    name = "reference"
    copies_weights = False

    def __init__(self, half_precision: bool = False, cache_bytes: int = CACHE_BYTES):
        self.half_precision, self.cache_bytes = half_precision, cache_bytes

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
        for op in (op for _, done, _ in stages(program) for op in done):
            if type(op) not in OPS:
                raise UnsupportedModelError(f"the reference backend lacks the op {op.kind}")
        return ReferenceStep(program, weights, limits, self.half_precision, self.cache_bytes)


class ReferenceStep:
    """A program ready to run. Holds keys and values in float32, (slots, context, K, C) a layer."""

    def __init__(
        self, program: Program, weights: Mapping[str, WeightView], limits: StepLimits, half_precision: bool, cache_bytes: int
    ):
        self.program, self.limits = program, limits
        self.state: State | None = State(program, weights, limits, half_precision, cache_bytes)
        self.kv_bytes = 4 * limits.slots * limits.context * sum(layer.stored_width for layer in program.layers)
        widths = {view.buffer.name: view.buffer.width for op in program.ops for view in op.views(op.reads + op.writes)}
        self.buffer_bytes = 4 * limits.chunk * sum(widths.values())
        self.filled = [0] * limits.slots  # positions of each slot that hold keys and values
        self._filled = self.filled
        self.stages = stages(program)

    def run(self, tokens: np.ndarray, slots: np.ndarray, positions: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Logits float32 (R, V) of the rows `outputs`; see `backends.base.Step`."""
        if len(self.stages) != 1 or self.stages[0][0]:
            raise not_alone()
        self.begin(tokens, slots, positions, outputs)
        self.stage(0, ())
        return self.logits()

    def begin(self, tokens: np.ndarray, slots: np.ndarray, positions: np.ndarray, outputs: np.ndarray) -> None:
        """See `backends.staged.Staged`."""
        state = self._open()
        tokens, slots, positions, outputs = check_run(tokens, slots, positions, outputs, self.program.vocab_size, self.limits)
        filled = list(self.filled)
        for slot, position in zip(slots.tolist(), positions.tolist(), strict=True):
            if position > filled[slot] and self.program.layers:
                raise OptionError(f"position {position} of slot {slot} comes before position {filled[slot]} has been run")
            filled[slot] = position + 1
        self._filled = filled
        state.begin(tokens, slots, positions, outputs)

    def stage(self, index: int, received: Sequence[np.ndarray]) -> list[np.ndarray]:
        state, (into, program, out_of) = self._open(), self.stages[index]
        for view, values in zip(into, received, strict=True):
            state.view(view)[:] = values
        with np.errstate(all="ignore"):  # infinities and NaN go their way into the logits, where the engine looks for them
            for op in program:
                OPS[type(op)](state, op)
        if index == len(self.stages) - 1:
            self.filled = self._filled
        return [state.view(view).copy() for view in out_of]

    def logits(self) -> np.ndarray:
        return self._open().logits

    def _open(self) -> State:
        if self.state is None:
            raise OptionError("the step has been closed")
        return self.state

    def watch_routes(self, on: bool) -> None:
        if self.state is not None:
            self.state.watched = [] if on else None

    def routes(self) -> list[RoutedLayer]:
        return [] if self.state is None else list(self.state.watched or ())

    def rebind(self) -> None:
        if self.state is not None:
            self.state.weights.forget()

    def close(self) -> None:
        self.state = None
