"""Several devices for one model: each computes its part of the program (`offload.cut`), stage by stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lacewing.backends.base import Backend, DeviceFacts
from lacewing.backends.batch import Batch, StepLimits
from lacewing.backends.step import RoutedLayer, Step
from lacewing.backends.weights import CacheStatistics, TensorSpec, TileOrder, WeightView
from lacewing.errors import BackendError
from lacewing.offload.cache import skippable_stages
from lacewing.offload.cut import ProgramCut
from lacewing.offload.experts import source_name
from lacewing.offload.rebalance import rebalancer_of, with_resident
from lacewing.options import Progress
from lacewing.program.operands import View
from lacewing.program.ops import Embed
from lacewing.program.program import Program


class OffloadBackend(Backend):
    """The backends of the parts of one program; the first is the one that was asked for, and gives the name."""

    copies_weights = True  # though not all of them

    def __init__(self, backends: Sequence[Backend], cut: ProgramCut):
        if len(backends) != len(cut.parts):
            raise BackendError(f"{len(backends)} devices for {len(cut.parts)} parts of a program")
        self.backends, self.cut = tuple(backends), cut
        self.name = backends[0].name

    def facts(self) -> DeviceFacts:
        """Of the first, with the names of all, and the most threads."""
        found = [backend.facts() for backend in self.backends]
        return replace(
            found[0], name=" and ".join(facts.name for facts in found if facts.name), threads=max(facts.threads for facts in found)
        )

    def room_bytes(self) -> int | None:
        """Of the first."""
        return self.backends[0].room_bytes()

    def memory_nodes(self) -> tuple[int, ...]:
        """Of all parts whose weights stay in RAM."""
        found = [backend.memory_nodes() for backend in self.backends if not backend.copies_weights]
        return tuple(sorted({node for nodes in found for node in nodes}))

    def tile_orders(self, program: Program, weights: Mapping[str, TensorSpec]) -> dict[str, TileOrder]:
        """Of weights that one part alone uses, which those of resident experts are not."""
        used = Counter(source_name(name) for part in self.cut.parts for name in part.program.weights)
        orders = [
            backend.tile_orders(part.program, weights)
            for backend, part in zip(self.backends, self.cut.parts, strict=True)
            if not backend.copies_weights
        ]
        return {name: order for found in orders for name, order in found.items() if used[name] == 1}

    def compile(
        self, program: Program, weights: Mapping[str, WeightView], limits: StepLimits, progress: Progress | None = None
    ) -> OffloadStep:
        """`program` is the one that was cut. What one part has taken is given back when another fails."""
        steps: list[Step] = []
        try:
            for backend, part in zip(self.backends, self.cut.parts, strict=True):
                steps.append(backend.compile(part.program, with_resident(part.program, weights), limits, progress))
            return OffloadStep(program, self.cut, steps, limits, weights)
        except BaseException:
            for step in steps:
                step.close()
            raise


@dataclass(frozen=True)
class _GroupPart:
    """What one step has of a group of the whole program: its own group, and the members of the whole one that these are."""

    step: Step
    group: int
    members: list[int]


class OffloadStep(Step):
    """The steps of all parts as one. A page of a group has the same id on every device that has states of the group."""

    def __init__(
        self, program: Program, cut: ProgramCut, steps: Sequence[Step], limits: StepLimits, weights: Mapping[str, WeightView]
    ):
        super().__init__(program, limits)
        self.cut, self.steps = cut, tuple(steps)
        self.buffer_bytes = sum(step.buffer_bytes for step in steps)
        self.notices = tuple(notice for step in steps for notice in step.notices)
        self._rebalancer, self._skippable = rebalancer_of(cut, steps, weights), skippable_stages(cut)
        self._parts = [_parts_of(group.members, cut, steps) for group in self.groups]
        fixed = [index for index, group in enumerate(self.groups) if not group.paged]
        self._fixed = [
            [number for number, group in enumerate(fixed) if any(part.step is step for part in self._parts[group])]
            for step in steps
        ]
        self._embeds = [any(isinstance(op, Embed) for op in part.program.ops) for part in cut.parts]

    # running

    def _run(self, batch: Batch) -> np.ndarray:
        if self._rebalancer is not None:
            self._rebalancer.between_runs()
        for step, fixed, embeds in zip(self.steps, self._fixed, self._embeds, strict=True):
            step.begin(_for_part(batch, fixed, embeds))
        sent: list[list[np.ndarray]] = []
        for number, each in enumerate(self.cut.schedule):
            self._stop_if_aborted()
            received = [sent[source][place] for source, place in each.received]
            skippable = self._skippable.get(number)
            nothing = None if skippable is None else skippable.skipped(received)
            sent.append(self.steps[each.device].stage(each.stage, received) if nothing is None else nothing)
        last = self.steps[self.cut.schedule[-1].device]
        rows, self.maxima = last.logits(), last.maxima
        return rows

    def _hidden(self, view: View, which: np.ndarray) -> np.ndarray:
        return self.steps[self.cut.schedule[-1].device].hidden()

    def abort(self) -> None:
        super().abort()
        for step in self.steps:
            step.abort()

    def watch_routes(self, on: bool) -> None:
        for step in self.steps:
            step.watch_routes(on)

    def routes(self) -> list[RoutedLayer]:
        """Layer by layer, whichever device the routers are on."""
        return sorted((routed for step in self.steps for routed in step.routes()), key=lambda routed: routed.layer)

    def rebind(self) -> None:
        for step in self.steps:
            step.rebind()
        if self._rebalancer is not None:
            self._rebalancer.bind()

    # experts

    @property
    def cache_statistics(self) -> CacheStatistics | None:
        """Of experts that a device has some of; None: of no layer."""
        return None if self._rebalancer is None else self._rebalancer.statistics

    def keep_experts(self) -> None:
        if self._rebalancer is not None:
            self._rebalancer.fixed = True

    def rebalance(self) -> None:
        with self._turn(keep_abort=True):
            if self._rebalancer is not None:
                self._rebalancer.run()

    # the bytes of states

    def _grow(self, group: int, count: int) -> None:
        """Parts that have grown already shrink again when one has no memory left."""
        before, done = self.sizes[group], []
        try:
            for part in self._parts[group]:
                part.step.grow(part.group, count)
                done.append(part)
        except BaseException:
            for part in done:
                part.step.grow(part.group, before)
            raise

    def _put_table(self, group: int, row: int, first: int, ids: np.ndarray) -> None:
        self._on_all(group, lambda part: part.step.put_table(part.group, row, first, ids))

    def _copy(self, group: int, pairs: Sequence[tuple[int, int]], positions: int) -> None:
        self._on_all(group, lambda part: part.step.copy(part.group, pairs, positions))

    def _on_all(self, group: int, work: Callable[[_GroupPart], None]) -> None:
        for part in self._parts[group]:
            work(part)

    def _read(self, group: int, ids: Sequence[int]) -> np.ndarray:
        whole = self.groups[group]
        count = len(whole.members)
        found = np.empty((len(ids), count, whole.nbytes // count), np.uint8)
        for part in self._parts[group]:
            found[:, part.members] = part.step.read(part.group, ids).reshape(len(ids), len(part.members), -1)
        return found.reshape(len(ids), -1)

    def _write(self, group: int, ids: Sequence[int], data: np.ndarray) -> None:
        pages = data.reshape(len(ids), len(self.groups[group].members), -1)
        for part in self._parts[group]:
            part.step.write(part.group, ids, pages[:, part.members].reshape(len(ids), -1))

    @property
    def state_bytes(self) -> int:
        return sum(step.state_bytes for step in self.steps)

    @property
    def host_bytes(self) -> int:
        return sum(step.host_bytes for step in self.steps)

    def _close(self) -> None:
        for step in self.steps:
            step.close()


def _parts_of(members: Sequence[int], cut: ProgramCut, steps: Sequence[Step]) -> list[_GroupPart]:
    """`members`: the states of a group of the whole program."""
    found = []
    for part, step in zip(cut.parts, steps, strict=True):
        for index, group in enumerate(step.groups):
            states = [part.states[member] for member in group.members]
            if states[0] in members:
                found.append(_GroupPart(step, index, [members.index(state) for state in states]))
    return found


def _for_part(batch: Batch, fixed: list[int], embeds: bool) -> Batch:
    """What a part is told of a batch: the units of its own fixed groups (by their numbers), and embeddings if it embeds."""
    if not embeds and batch.embeddings is not None:
        batch = replace(batch, tokens=np.maximum(batch.tokens, 0), embeddings=None)
    if batch.units_in is None or batch.units_out is None:
        return batch
    return replace(batch, units_in=batch.units_in[fixed], units_out=batch.units_out[fixed])
