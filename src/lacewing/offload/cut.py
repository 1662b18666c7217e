"""Cutting a program into parts for several devices, which take turns: pure data, whoever computes them.

Each device gets one program of its own, with its own weights and states. It runs in stages: a stage
begins with a `Receive` and ends with a `Send` or the logits. Buffers of a device keep their values from stage to stage of a run,
so that only what another device has written since is transferred.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lacewing.program import ops
from lacewing.program.ops import Op, View
from lacewing.program.program import Program


class CutError(ValueError):
    """Ops that belong together were given to different devices: a mistake in our own planning, never in a person's file."""


@dataclass(frozen=True)
class Part:
    """What one device does. `states`: which of the whole program's each of its states is, in ascending order."""

    program: Program
    states: tuple[int, ...]


@dataclass(frozen=True)
class ScheduledStage:
    """A stage of a device. `received`: for each view of its `Receive` the scheduled stage that sent it, and which view it was."""

    device: int
    stage: int
    received: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class ProgramCut:
    """`parts` by device; `schedule` in the order in which they run, the last one makes the logits."""

    parts: tuple[Part, ...]
    schedule: tuple[ScheduledStage, ...]


@dataclass
class _Stage:
    device: int
    ops: list[Op]
    received: list[tuple[View, int, int]] = field(default_factory=list)  # view, number of the stage that sends it, place there
    sent: list[View] = field(default_factory=list)


def cut_program(program: Program, devices: Sequence[int]) -> ProgramCut:
    """Give op i to device devices[i], numbered from 0.

    The logits, the ops on a state, and the experts of a router must be together: raises CutError.
    """
    if len(devices) != len(program.ops) or not program.ops:
        raise CutError(f"{len(devices)} devices for {len(program.ops)} ops")
    _together(program, devices)
    stages: list[_Stage] = []
    for op, device in zip(program.ops, devices, strict=True):
        if not stages or stages[-1].device != device:
            stages.append(_Stage(device, []))
        stages[-1].ops.append(op)
    _transfer(stages, 1 + max(devices))
    parts = tuple(_part(program, stages, device) for device in range(1 + max(devices)))
    counts, schedule = [0] * len(parts), []
    for stage in stages:
        schedule.append(
            ScheduledStage(stage.device, counts[stage.device], tuple((source, place) for _, source, place in stage.received))
        )
        counts[stage.device] += 1
    return ProgramCut(parts, tuple(schedule))


def _together(program: Program, devices: Sequence[int]) -> None:
    """Raises CutError."""
    states: dict[int, int] = {}
    router: int | None = None
    dispatched: set[View] = set()
    for op, device in zip(program.ops, devices, strict=True):
        if device < 0:
            raise CutError(f"device {device}")
        for state in op.state_ids:
            if states.setdefault(state, device) != device:
                raise CutError(f"state {state} was given to two devices")
        if isinstance(op, ops.Route):
            router = device
        if isinstance(op, ops.Dispatch):
            dispatched |= {op.here, op.there}
        if isinstance(op, ops.ExpertLinear) and router != device and op.ids not in dispatched:
            raise CutError(f"the experts of {op.weights[0]} and their router were given to two devices")


def _transfer(stages: list[_Stage], count: int) -> None:
    """Find what each stage needs of others' work: columns whose last value its device does not have. They are sent by the stage
    that they come from, so that nobody waits for later ones."""
    since: list[dict[str, np.ndarray]] = [{} for _ in range(count)]  # of each device: buffer name: int (width,), the stage or -1

    def known(device: int, view: View) -> np.ndarray:
        numbers = since[device].setdefault(view.buffer.name, np.full(view.buffer.width, -1))
        return numbers[view.start : view.start + view.width]

    for number, stage in enumerate(stages):
        for op in stage.ops:
            for view in op.reads:
                for missing in _runs(view, known(stage.device, view) < 0):
                    others = [known(device, missing) for device in range(count) if device != stage.device]
                    for source, part in _sources(missing, others):
                        stage.received.append((part, source, len(stages[source].sent)))
                        stages[source].sent.append(part)
                        known(stage.device, part)[:] = number
            for view in op.writes:
                for device in range(count):
                    known(device, view)[:] = number if device == stage.device else -1


def _sources(view: View, known: Sequence[np.ndarray]) -> Iterator[tuple[int, View]]:
    """Which stages have which columns of a view, the earliest first. `known`: by device. Raises CutError if none has."""
    left = np.ones(view.width, bool)
    for number in sorted({int(each) for numbers in known for each in numbers if each >= 0}):
        for numbers in known:
            for part in list(_runs(view, left & (numbers == number))):
                left[part.start - view.start : part.start - view.start + part.width] = False
                yield number, part
    if left.any():
        raise CutError(f"{ops.show(view)} is read before it is written")


def _runs(view: View, flags: np.ndarray) -> Iterator[View]:
    """The flagged columns of a view, one after another as far as they go."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False]))))
    for first, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        yield View(view.buffer, view.start + first, end - first)


def _part(program: Program, stages: list[_Stage], device: int) -> Part:
    found: list[Op] = []
    for stage in stages:
        if stage.device == device:
            found += [ops.Receive(tuple(view for view, _, _ in stage.received)), *stage.ops]
            if stage is not stages[-1]:
                found.append(ops.Send(tuple(stage.sent)))
    return part_of(program, found)


def part_of(program: Program, some: Sequence[Op]) -> Part:
    """Some ops of a program, with the weights and the states that they use."""
    states = tuple(sorted({state for op in some for state in op.state_ids}))
    renumbered = {state: index for index, state in enumerate(states)}
    found = tuple(op.with_states(renumbered) if op.state_ids else op for op in some)
    weights = {name: program.weights[name] for op in found for name in op.weight_names}
    return Part(replace(program, ops=found, weights=weights, states=tuple(program.states[state] for state in states)), states)
