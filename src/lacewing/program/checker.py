"""What is remembered while a program is checked op by op: columns written, weights and states used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lacewing.program import ops
from lacewing.program.operands import Op, View
from lacewing.program.program import Program
from lacewing.program.states import FixedState, PagedState


class ProgramError(ValueError):
    """A program contradicts itself: a mistake in our own model code, never in a person's file."""


def require(holds: bool, problem: str) -> None:
    if not holds:
        raise ProgramError(problem)


def in_place(out: View, view: View, name: str) -> None:
    """An op may write over what it reads, if that is column by column."""
    require(out == view or not out.overlaps(view), f"out must be {name} itself or lie apart from it")


def equal_heads(view: View, heads: int) -> None:
    require(heads >= 1 and view.width % heads == 0, f"width {view.width} is not {heads} equal heads")


class Checker:
    """Walks the ops once, remembering which columns have been written and which weights and layers have been used."""

    def __init__(self, program: Program):
        self.program = program
        self.widths: dict[str, int] = {}  # of buffers
        self.written: dict[str, list[tuple[int, int]]] = {}  # buffer name: first columns and ends of what lies apart, in order
        self.used: set[str] = set()
        self.of_op: set[str] = set()  # weights that the rule of this op has looked at
        self.stored: set[int] = set()  # states
        self.read: set[int] = set()
        self.routed: dict[View, int | None] = {}  # views that hold ids: of how many experts, None: another device knows
        self.selected: set[View] = set()  # views that hold what SelectKeys chose, or come from another device
        self.finished = self.sent = False

    def check(self, op: Op, rule: Callable[[Checker, Any], None]) -> None:
        """`rule`: what is special about its kind."""
        require(not self.finished, "stands after the logits")
        require(not self.sent or isinstance(op, ops.Receive), "stands between two stages")
        for view in op.views:
            self._inside(view)
        for view in op.reads:
            require(self._is_written(view), f"{ops.show(view)} is read before it is written")
        self.of_op = set()
        rule(self, op)
        require(self.of_op == set(op.weight_names), f"has weights {sorted(op.weight_names)}, its check knows {sorted(self.of_op)}")
        for view in op.writes:
            self._write(view)
            self.routed = {ids: experts for ids, experts in self.routed.items() if not ids.overlaps(view)}
            self.selected = {chosen for chosen in self.selected if not chosen.overlaps(view)}
        if isinstance(op, ops.SelectKeys):
            self.selected.add(op.chosen)
        elif isinstance(op, ops.Route):
            self.routed[op.ids] = op.logits.width
        elif isinstance(op, ops.Dispatch):
            self.routed |= {op.here: op.resident, op.there: op.experts}
        elif isinstance(op, ops.Receive):
            self.routed |= dict.fromkeys(op.outs)
            self.selected |= set(op.outs)

    def _inside(self, view: View) -> None:
        """Checks that a view lies in its buffer."""
        buffer = view.buffer
        known = self.widths.setdefault(buffer.name, buffer.width)
        require(known == buffer.width, f"buffer {buffer.name} has width {buffer.width} here and {known} before")
        inside = view.start >= 0 and view.width > 0 and view.start + view.width <= buffer.width
        require(inside, f"{ops.show(view)} does not lie in its buffer of width {buffer.width}")

    def _is_written(self, view: View) -> bool:
        spans = self.written.get(view.buffer.name, ())
        return any(start <= view.start and view.start + view.width <= end for start, end in spans)

    def _write(self, view: View) -> None:
        """Joins the view with what it touches."""
        start, end = view.start, view.start + view.width
        spans = self.written.get(view.buffer.name, [])
        joined = [span for span in spans if span[0] <= end and start <= span[1]]
        start, end = min([start, *(span[0] for span in joined)]), max([end, *(span[1] for span in joined)])
        self.written[view.buffer.name] = sorted([(start, end), *(span for span in spans if span not in joined)])

    def weight(self, name: str, *shape: int) -> None:
        require(name in self.program.weights, f"weight {name} is not listed in the program")
        listed = tuple(self.program.weights[name])
        require(listed == shape, f"weight {name} is listed as {listed}, this op needs {shape}")
        self.used.add(name)
        self.of_op.add(name)

    def paged(self, index: int) -> PagedState:
        state = self._state(index)
        if not isinstance(state, PagedState):
            raise ProgramError(f"state {index} is not paged")
        return state

    def fixed(self, index: int) -> FixedState:
        """Of an op that reads and writes it, as no other one does."""
        state = self._state(index)
        if not isinstance(state, FixedState):
            raise ProgramError(f"state {index} is not fixed")
        require(index not in self.stored, f"state {index} is written twice")
        self.stored.add(index)
        self.read.add(index)
        return state

    def _state(self, index: int) -> Any:
        require(0 <= index < len(self.program.states), f"state {index} of {len(self.program.states)}")
        return self.program.states[index]

    def finish(self) -> None:
        """What only the whole program can tell."""
        require(self.finished or self.sent, "the program has no logits")
        unused = sorted(set(self.program.weights) - self.used)
        require(not unused, f"the program lists weights that no op uses: {', '.join(unused[:8])}")
        idle = sorted(set(range(len(self.program.states))) - self.read)
        require(not idle, f"no op reads the states {idle[:8]}")
