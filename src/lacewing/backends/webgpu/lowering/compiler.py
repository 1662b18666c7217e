"""Turns ops into dispatches: places, weights, pipelines and bind groups. Each op's own part is a file of `lowering/`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lacewing.backends.batch import StepLimits
from lacewing.backends.gpu.arena import Arena, Halved, Place, Quantised
from lacewing.backends.gpu.conversion import FP8, LARGEST_HALF, largest_value
from lacewing.backends.gpu.inputs import Inputs
from lacewing.backends.gpu.layouts import GROUP
from lacewing.backends.gpu.pages import PageLayout, layout_of, state_bytes
from lacewing.backends.gpu.run import Run
from lacewing.backends.registry import Rules
from lacewing.backends.webgpu.device.device import Device, Slice
from lacewing.backends.webgpu.kernels import number, shader
from lacewing.backends.webgpu.lowering.dispatches import Binding, Dispatch, Grid, Router, Stage
from lacewing.backends.webgpu.state.states import States
from lacewing.backends.webgpu.weights.matrices import Matrix, Uploader
from lacewing.backends.webgpu.weights.stacks import ResidentStack
from lacewing.backends.weights import ResidentExperts, WeightView
from lacewing.errors import OutOfMemoryError, UnsupportedModelError
from lacewing.options import Progress, format_bytes
from lacewing.program.ops import View
from lacewing.program.program import Program
from lacewing.program.stream_ops import Lookup

LOGIT_BYTES = 2**24  # of logits in one pass
LIFT = 16  # by which BF16 is larger on matrix units (kernels/gemm/gemm_units.wgsl)


def logit_rows(program: Program, limits: StepLimits) -> int:
    """Rows of logits that are made in a pass."""
    return max(1, min(limits.chunk, LOGIT_BYTES // (4 * program.vocab_size)))


class Compiler:
    """One program on its way to the device.

    Buffers whose size is known at the end only (the arena) are bound at the end: `dispatch` keeps what to bind.
    """

    def __init__(self, device: Device, program: Program, weights: Mapping[str, WeightView], limits: StepLimits, uploader: Uploader):
        self.device, self.program, self.weights, self.limits, self.uploader = device, program, weights, limits, uploader
        self.variant = device.variant
        self.arena = Arena(limits.chunk, device.largest_buffer // 4)
        for op in program.ops:
            self.arena.add(view.buffer for view in op.views)
        for group in program.groups:
            nbytes = group.live(limits.context, limits.chunk) * state_bytes(group.state)
            if nbytes > device.largest_buffer:
                raise OutOfMemoryError(
                    f"the KV cache of a layer takes {format_bytes(nbytes)}, but this GPU binds "
                    f"{format_bytes(device.largest_buffer)}; "
                    "use a smaller `context`, or `kv_type='q8_0'`"
                )
        self.states = States(device, program)
        self.inputs = Inputs.of(program, limits)
        self.step_buffer = device.buffer(4 * self.inputs.words, "the step's inputs")
        # so many rows of logits are made in a pass
        self.logit_rows = logit_rows(program, limits)
        self.made: list[Any] = []  # buffers to free at the end, besides weights
        self.logits = self.own(4 * self.logit_rows * program.vocab_size, "logits")
        self.matrices: dict[tuple[str, ...], Matrix] = {}
        self.vectors: dict[str, Slice] = {}
        self.held: dict[tuple[str, ...], ResidentStack] = {}  # stacks of some experts of all, by their weights
        self.report: Progress = lambda what, done, total: None  # may raise to cancel
        self._halves_hold: dict[str, bool] = {}
        self._constants: dict[bytes, Slice] = {}
        self._scratch: dict[tuple[str, int], Slice] = {}
        self._quantised: dict[str, list[tuple[int, int, int]]] = {}  # from and to which column, up to how many tokens
        self._halved: dict[View, int] = {}  # above how many tokens
        self.index = 0  # of the op that is lowered now
        self.done: set[int] = set()  # ops that the lowering of an earlier one took over
        self.sorted_pairs: dict[object, Place] = {}  # where pairs of tokens and experts sorted by expert stand
        self.routers: list[Router] = []
        self.stages: list[Stage] = []  # none: the program is not a part of one
        self.lookups: list[Lookup] = []  # whose rows the step brings
        self.fresh: set[object] = set()  # those of them that belong to the last router
        self._waiting: list[tuple[str, str, list[Binding], Callable[[Run], Grid | None]]] = []

    def lower(self) -> None:
        """Turn all ops into dispatches, in their order."""
        for index, op in enumerate(self.program.ops):
            if index not in self.done:
                self.index = index
                RULES[op](self, op)

    # states

    def page_layout(self, state: int, value_width: int | None = None) -> PageLayout:
        """Where the KV cache of a state stands; `value_width`: width of the values that are read."""
        paged = [group for group in self.program.groups if group.paged]
        number = next(number for number, group in enumerate(paged) if state in group.members)
        return layout_of(self.program, state, self.inputs.table(number), self.inputs.table_width, value_width)

    def fixed_group(self, state: int) -> int:
        """The number of a fixed state's group among those of fixed states."""
        fixed = [group for group in self.program.groups if not group.paged]
        return next(number for number, group in enumerate(fixed) if state in group.members)

    # places

    def at(self, view: View) -> Place:
        return self.arena.view(view)

    def quantised_tokens(self, view: View) -> int:
        """The q8 form of a view is there in runs of up to so many tokens."""
        found = self._quantised.get(view.buffer.name, ())
        return max((most for a, b, most in found if a <= view.start and view.start + view.width <= b), default=0)

    def mark_quantised(self, view: View, most: int | None = None) -> None:
        """A kernel has made the q8 form of a view, in runs of up to `most` tokens; None: of all."""
        most = self.limits.chunk if most is None else most
        self._quantised.setdefault(view.buffer.name, []).append((view.start, view.start + view.width, most))

    def written(self, view: View) -> None:
        """The q8 and float16 forms of the view are no longer its values."""
        self._halved = {each: most for each, most in self._halved.items() if not each.overlaps(view)}
        a, b = view.start, view.start + view.width
        before = self._quantised.get(view.buffer.name, ())
        self._quantised[view.buffer.name] = [each for each in before if each[1] <= a or b <= each[0]]

    def quantised(self, view: View, most: int) -> Quantised:
        """The activations of a view as q8, in runs of up to `most` tokens; a dispatch makes them where no kernel did."""
        if view.start % GROUP or view.width % GROUP:
            raise UnsupportedModelError(f"{view.buffer.name} is not read in groups of {GROUP} values; use `backend='cpu'`")
        found = self.arena.quantised(view)
        done = self.quantised_tokens(view)
        if done < most:
            x, groups = self.at(view), view.width // GROUP
            self.dispatch(
                "quantise",
                {"x": x, "q8": found, "groups": groups},
                [],
                lambda run: (-(-groups // 64), run.tokens, 1) if done < run.tokens <= most else None,
            )
            self.mark_quantised(view, most)
        return found

    def mark_halved(self, view: View, most: int) -> None:
        """A kernel has made the float16 form of a view, in runs of more than `most` tokens."""
        self._halved[view] = most

    def halved(self, view: View, most: int) -> Halved:
        """The activations of a view as float16, in runs of more than `most` tokens; a dispatch makes them."""
        found = self.arena.halved(view)
        done = self._halved.get(view, self.limits.chunk)
        if done > most:
            self.dispatch(
                "halve",
                {"x": self.at(view), "halves": found, "columns": view.width},
                [],
                lambda run: (1, run.tokens, 1) if most < run.tokens <= done else None,
            )
            self._halved[view] = most
        return found

    # weights

    def matrix(self, names: Sequence[str], indivisible: int = 1, transposed: bool = False) -> Matrix:
        """The weights as one matrix, uploaded once; see `Uploader.matrix`."""
        key = (*names, "transposed") if transposed else tuple(names)
        if key not in self.matrices:
            self.matrices[key] = self.uploader.matrix([self.weights[name] for name in names], indivisible, transposed)
        return self.matrices[key]

    def halves_hold(self, name: str, quant: str) -> bool:
        """Whether float16 holds the values of a weight that is stored as `quant`, as matrix units take them. Of experts that are
        exchanged for others nobody has seen all; scales of blocks are taken to be in range."""
        weight = self.weights[name]
        if name not in self._halves_hold and quant == "BF16":
            seen = not isinstance(weight, ResidentExperts)
            self._halves_hold[name] = seen and self.uploader.largest(weight) <= LARGEST_HALF / LIFT
        elif name not in self._halves_hold:
            self._halves_hold[name] = quant != FP8 or largest_value(weight) <= LARGEST_HALF
        return self._halves_hold[name]

    def vector(self, name: str) -> Slice:
        if name not in self.vectors:
            self.vectors[name] = self.uploader.vector(self.weights[name])
        return self.vectors[name]

    def constant(self, values: np.ndarray) -> Slice:
        """Numbers of the program, such as frequencies, on the device; equal ones once."""
        key = values.tobytes()
        if key not in self._constants:
            self._constants[key] = self.own(values.nbytes, "constants")
            self.device.write(self._constants[key].buffer, 0, values)
        return self._constants[key]

    def own(self, nbytes: int, label: str) -> Slice:
        """A buffer of the step's own."""
        buffer = self.device.buffer(nbytes, label)
        self.made.append(buffer)
        return Slice(buffer, 0, buffer.size)

    def scratch(self, label: str, nbytes: int) -> Slice:
        """A buffer that all ops share, for what no other op reads."""
        if (label, nbytes) not in self._scratch:
            self._scratch[label, nbytes] = self.own(nbytes, label)
        return self._scratch[label, nbytes]

    # dispatches

    def dispatch(
        self,
        kernel: str,
        constants: Mapping[str, object],
        bindings: Sequence[Binding],
        grid: Callable[[Run], Grid | None],
        label: str = "",
    ) -> None:
        """Add a kernel. Binding 0 is the arena, binding 1 the step's inputs, `bindings` follow."""
        text = shader(kernel, **self.whole(constants))
        self.device.prepare(text, label or kernel)
        self._waiting.append((label or kernel, text, list(bindings), grid))

    def whole(self, constants: Mapping[str, object]) -> dict[str, object]:
        """With those that every kernel has."""
        common = {"variant": self.variant, "number": number, "inputs": self.inputs}
        return {**common, **constants}

    @property
    def dispatched(self) -> int:
        """How many dispatches there are so far."""
        return len(self._waiting)

    def finish(self) -> tuple[list[Dispatch], tuple[Slice, Slice]]:
        """All dispatches, bound, and what bindings 0 and 1 of each are."""
        shared = (self.own(self.arena.words * 4, "activations"), Slice(self.step_buffer, 0, self.step_buffer.size))
        done = []
        for index, (label, text, bindings, grid) in enumerate(self._waiting):
            self.report("compiling kernels", index, len(self._waiting))
            pipeline = self.device.pipeline(text, label)
            done.append(Dispatch(label, pipeline, shared, tuple(bindings), grid))
            done[-1].bind(self.device)
        return done, shared


Lowering = Callable[[Compiler, Any], None]
RULES: Rules[Lowering] = Rules("WebGPU")
