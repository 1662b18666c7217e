"""Turns ops into launches: places, weights, arguments. Each op's own part is a file of `lowering/`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lacewing.backends.batch import StepLimits
from lacewing.backends.cuda.arguments import Addresses, Argument, Matrix, Packed, Planes, Pointer, blocks
from lacewing.backends.cuda.device.device import Buffer, Device
from lacewing.backends.cuda.kernels import kernel
from lacewing.backends.cuda.lowering.launches import Forms, Grid, Launch, Router, Stage, Waiting
from lacewing.backends.cuda.state.states import States
from lacewing.backends.cuda.weights.upload import ResidentStack, Uploader
from lacewing.backends.gpu.arena import Arena, Place
from lacewing.backends.gpu.inputs import Inputs
from lacewing.backends.gpu.pages import PageLayout, layout_of
from lacewing.backends.gpu.run import Run
from lacewing.backends.registry import Rules
from lacewing.backends.weights import WeightView
from lacewing.options import Progress
from lacewing.program.ops import View
from lacewing.program.program import Program

LOGIT_BYTES = 2**26  # of logits in one pass
_NO_LIMIT = 2**62


def logit_rows(program: Program, limits: StepLimits) -> int:
    """Rows of logits that are made in a pass."""
    return max(1, min(limits.chunk, LOGIT_BYTES // (4 * max(1, program.vocab_size))))


class Compiler:
    """One program on its way to the device. Arguments are packed at the end, when the arena's size is known."""

    def __init__(self, device: Device, program: Program, weights: Mapping[str, WeightView], limits: StepLimits, uploader: Uploader):
        self.device, self.program, self.weights, self.limits, self.uploader = device, program, weights, limits, uploader
        self.arena = Arena(limits.chunk, _NO_LIMIT)
        for op in program.ops:
            self.arena.add(view.buffer for view in op.views)
        self.states = States(device, program)
        self.inputs = Inputs.of(program, limits)
        self.made: list[Buffer] = []  # to free at the end, besides weights and states
        self.step_buffer = self.own(4 * self.inputs.words, "the step's inputs").buffer
        self.kept = self.own(8, "where routers' decisions are kept").buffer  # a pointer, null at first
        self.logit_rows = logit_rows(program, limits)
        self.logits = self.own(4 * self.logit_rows * program.vocab_size, "logits")
        self.matrices: dict[tuple[str, ...], Matrix] = {}
        self.vectors: dict[str, Pointer] = {}
        self.held: dict[tuple[str, ...], ResidentStack] = {}  # stacks of some experts of all, by their weights
        self.report: Progress = lambda what, done, total: None  # may raise to cancel
        self.prepared: dict[str, tuple[tuple[object, ...], int]] = {}  # see `lowering/inputs.py`
        self.most_bytes = 1  # tokens that have their bytes there now
        self._constants: dict[bytes, Pointer] = {}
        self._scratch: dict[tuple[str, int], Pointer] = {}
        self.index = 0  # of the op that is lowered now
        self.done: set[int] = set()  # ops that the lowering of an earlier one took over
        self.routers: list[Router] = []
        self.stages: list[Stage] = []  # none: the program is not a part of one
        self._waiting: list[Waiting] = []

    def lower(self) -> None:
        """Turn all ops into launches, in their order."""
        for index, op in enumerate(self.program.ops):
            if index not in self.done:
                self.index = index
                RULES[op](self, op)

    # states

    def page_layout(self, state: int, value_width: int | None = None) -> PageLayout:
        """Where the KV cache of a state stands; `value_width` of those that are read."""
        paged = [group for group in self.program.groups if group.paged]
        number = next((number for number, group in enumerate(paged) if state in group.members), 0)
        return layout_of(self.program, state, self.inputs.table(number), self.inputs.table_width, value_width)

    def fixed_group(self, state: int) -> int:
        """The number of a fixed state's group among those of fixed states."""
        fixed = [group for group in self.program.groups if not group.paged]
        return next(number for number, group in enumerate(fixed) if state in group.members)

    # places and weights

    def at(self, view: View) -> Place:
        return self.arena.view(view)

    def at_or_none(self, view: View | None) -> Place | None:
        """Of an operand that may be left out."""
        return None if view is None else self.arena.view(view)

    def matrix(self, names: Sequence[str], transposed: bool = False) -> Matrix:
        """The weights as one matrix, uploaded once; see `Uploader.matrix`."""
        key = (*names, "transposed") if transposed else tuple(names)
        if key not in self.matrices:
            self.matrices[key] = self.uploader.matrix([self.weights[name] for name in names], transposed)
        return self.matrices[key]

    def vector(self, name: str | None) -> Pointer:
        """The values of a weight as float32; null for none."""
        if name is None:
            return Pointer(None)
        if name not in self.vectors:
            self.vectors[name] = Pointer(self.uploader.vector(self.weights[name]))
        return self.vectors[name]

    def constant(self, values: np.ndarray) -> Pointer:
        """Numbers of the program, such as frequencies, on the device; equal ones once."""
        key = values.tobytes()
        if key not in self._constants:
            made = self._constants[key] = self.own(values.nbytes, "constants")
            self.write(made, values)
        return self._constants[key]

    def write(self, to: Pointer, values: np.ndarray) -> None:
        if to.buffer is not None:
            self.device.write(to.buffer, to.offset, values)

    def own(self, nbytes: int, label: str) -> OwnPointer:
        """Memory of the step's own."""
        made = self.device.buffer(nbytes, label)
        self.made.append(made)
        return OwnPointer(made)

    def zeros(self, label: str, nbytes: int) -> Pointer:
        """Memory that all ops share, of zeros, which each of them leaves again."""
        found = self.scratch(label, nbytes)
        if found.buffer is not None:
            self.device.clear(found.buffer, 0)
        return found

    def scratch(self, label: str, nbytes: int) -> Pointer:
        """Memory that all ops share, for what no other op reads."""
        if (label, nbytes) not in self._scratch:
            self._scratch[label, nbytes] = self.own(nbytes, label)
        return self._scratch[label, nbytes]

    # launches

    def launch(
        self,
        name: str,
        macros: Mapping[str, object],
        arguments: Sequence[Argument],
        grid: Callable[[Run], Grid | None],
        label: str = "",
        shared: int = 0,
        forms: Forms | None = None,
    ) -> None:
        """Add a kernel. Later launches may ask for forms of its result, if it makes any."""
        self.device.prepare(name, macros)
        nbytes = sum(buffer.size for each in arguments if isinstance(each, Planes) for buffer in each.buffers)
        self._waiting.append(Waiting(name, dict(macros), list(arguments), grid, label or name, shared, nbytes, self.index, forms))

    def over(self, name: str, macros: Mapping[str, object], arguments: Sequence[Argument], width: int, fewest: int = 1) -> None:
        """A kernel with a thread a column of every token, in runs of `fewest` tokens and more."""
        across = blocks(width, kernel(name).threads)
        self.launch(name, macros, arguments, lambda run: Grid(across, run.tokens) if run.tokens >= fewest else None)

    def maker(self, view: View) -> Waiting | None:
        """The last launch of this part of the program that makes this view and can make forms of it."""
        first = self.stages[-1].first if self.stages else 0
        made = (each for each in reversed(self._waiting[first:]) if each.forms is not None and each.forms.view == view)
        return next(made, None)

    @property
    def launched(self) -> int:
        """How many launches there are so far."""
        return len(self._waiting)

    def finish(self) -> tuple[list[Launch], Buffer, Addresses]:
        """All launches, the activations, and where things stand."""
        activations = self.own(self.arena.words * 4, "activations").buffer
        addresses = Addresses(
            activations.address, self.step_buffer.address, self.states.table.address, self.kept.address, self.inputs
        )
        done = []
        for index, each in enumerate(self._waiting):
            self.report("compiling kernels", index, len(self._waiting))
            done.append(self.made_launch(each, addresses))
        return done, activations, addresses

    def made_launch(self, waiting: Waiting, addresses: Addresses) -> Launch:
        function = self.device.function(waiting.kernel, waiting.macros)
        self.device.allow_shared(function, waiting.shared)
        arguments = [*waiting.arguments, *([] if waiting.forms is None else [waiting.forms.joined()])]
        packed = Packed([addresses.packed(each) for each in arguments])
        return Launch(waiting.label, function, packed, waiting.grid, waiting.shared, waiting.nbytes)


class OwnPointer(Pointer):
    """One that points to something."""

    buffer: Buffer


Lowering = Callable[[Compiler, Any], None]
RULES: Rules[Lowering] = Rules("CUDA")
