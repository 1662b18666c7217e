"""A compiled step: writes the inputs, replays the launches, reads the logits back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from lacewing.backends.batch import Batch, Candidates, Draw, Wanted
from lacewing.backends.cuda.device.device import Device
from lacewing.backends.cuda.lowering.compiler import Compiler
from lacewing.backends.cuda.lowering.launches import Launch, Plan
from lacewing.backends.cuda.step.choice import AHEAD, Choice, DeviceArgmax, DeviceDraw, DeviceTopK, Found
from lacewing.backends.cuda.step.replay import Replay
from lacewing.backends.cuda.step.routes import RouteWatch
from lacewing.backends.cuda.step.timing import Timed, copy_rate, kernel_times, timed_of
from lacewing.backends.gpu.candidates import WANTED
from lacewing.backends.gpu.host_rows import HostRows
from lacewing.backends.gpu.inputs import PREFILL_TOKENS
from lacewing.backends.gpu.run import Run
from lacewing.backends.gpu.wishes import MOST_BIASES
from lacewing.backends.step import KernelTime, RoutedLayer, Step
from lacewing.errors import OptionError
from lacewing.program.operands import View
from lacewing.program.states import PAGE


def comes_again(run: Run) -> bool:
    """Whether later runs are likely to be the same: of a token a row, or what speculation looks at."""
    return run.single or (not run.prefill and run.tokens <= PREFILL_TOKENS)


class CudaStep(Step):
    """A program on the device, with its weights, activations and states."""

    most_candidates = WANTED
    runs_ahead = True
    can_profile = True

    def __init__(self, compiler: Compiler):
        super().__init__(compiler.program, compiler.limits)
        self._device, self._inputs = compiler.device, compiler.inputs
        self._step_buffer, self._logits, self.logit_rows = compiler.step_buffer, compiler.logits.buffer, compiler.logit_rows
        self._launches, self._arena, addresses = compiler.finish()
        self._places, self._states = compiler.arena, compiler.states
        self._argmax, self._top_k = DeviceArgmax(compiler, addresses), DeviceTopK(compiler, addresses)
        self._draw = DeviceDraw(compiler, addresses, self._top_k)
        self._rows = HostRows(compiler.program, compiler.weights, compiler.arena)
        self.runs_ahead = not self._rows.of_tables  # the host must see a token before its rows can be looked up
        self._watch = RouteWatch(self._device, compiler.routers, self.limits.chunk, compiler.kept)
        self._made = compiler.made
        self._weights = [buffer for matrix in compiler.matrices.values() for buffer in matrix.buffers]
        self._weights += [part.buffer for part in compiler.vectors.values() if part.buffer is not None]
        self.buffer_bytes = sum(buffer.size for buffer in self._made)
        self._found = self._device.pinned(4 * self.logit_rows * max(1, self.program.vocab_size))
        self._replay = Replay(self._device)
        self._tables = {index: number for number, index in enumerate(i for i, group in enumerate(self.groups) if group.paged)}
        self._host_tables = np.zeros((len(self._tables), self.limits.rows, self.table_width), np.int32)
        self._runs = 0  # what ran ahead before the last one is no longer what it was

    @property
    def host_bytes(self) -> int:
        """None of the states and buffers is in this machine's RAM."""
        return 0

    @property
    def launches(self) -> list[Launch]:
        """Of a run, those that it does not need included."""
        return self._launches

    @property
    def device(self) -> Device:
        return self._device

    # running

    def _run(self, batch: Batch) -> np.ndarray:
        found = np.empty((len(batch.outputs), self.program.vocab_size), np.float32)
        for first, rows in self._passes(len(batch.outputs)):
            self._write_inputs(batch, rows, first)
            self._launch(Run.of(batch, rows), "", list, first > 0)
            self._read_logits(found[first : first + rows])
        return found

    def _read_logits(self, out: np.ndarray) -> None:
        """The rows of a pass; without any, wait until it is done: else nobody could stop a long prompt, nor tell how far it is."""
        if out.size:
            self._found.fetch(self._logits.address, out.nbytes)
        self._found.mark()
        out.reshape(-1)[:] = self._found.wait(out.nbytes).view(np.float32)
        self._stop_if_aborted()

    def _choose(self, batch: Batch, wanted: Sequence[Wanted]) -> list[Candidates]:
        if not wanted or any(each.count > WANTED or len(each.bias or ()) > MOST_BIASES for each in wanted):
            return super()._choose(batch, wanted)
        plain, found = all(each.plain for each in wanted), list[Candidates]()
        for first, rows in self._passes(len(wanted)):
            self._write_inputs(batch, rows, first)
            some, run = wanted[first : first + rows], Run.of(batch, rows)
            self._launch(run, "top" if plain else "", lambda rows=rows: self._top_k.plan(rows) if plain else [], first > 0)  # type: ignore[misc]
            if not plain:  # masks are made while the device computes
                some = [each.settled() for each in some]
                self._top_k.wishes.write(some)
                self._device.launch_all(self._top_k.plan(rows, plain=False))
            self._top_k.begin(rows)
            found += self._top_k.take(some)
            self._stop_if_aborted()
        return found

    def _passes(self, outputs: int) -> Iterator[tuple[int, int]]:
        """First row of logits and number of rows of each pass."""
        for first in range(0, max(1, outputs), self.logit_rows):
            yield first, min(self.logit_rows, outputs - first)

    def _launch(self, run: Run, choice: str, behind: Callable[[], Plan], logits_only: bool = False) -> None:
        """The launches of a run and those of a choice behind them; runs of few tokens come again and become graphs."""
        if comes_again(run) and not logits_only:
            self._stop_if_aborted()
            self._replay.often((run, choice), lambda: [*self._plan(run), *behind()])
        else:
            self._replay.once([*self._plan(run, logits_only), *behind()], self._stop_if_aborted)

    def _plan(self, run: Run, logits_only: bool = False) -> Plan:
        """What a run launches; `logits_only`: the products to logits, and what brings their rows into another form."""
        chosen = [each for each in self._launches if not logits_only or each.label.startswith("logits")]
        return [each.planned(grid) for each in chosen if (grid := each.grid(run)) is not None]

    def greedy(self, batch: Batch, count: int) -> Generator[np.ndarray, None, None]:
        """See `Step.greedy`."""
        if self._rows.of_tables or len(batch.tokens) > self.logit_rows:
            yield from super().greedy(batch, count)
        else:
            yield from self._fed_back(batch, count, self._argmax)

    def drawn(
        self, batch: Batch, draws: Sequence[Draw], count: int, numbers: Callable[[int], Sequence[float]]
    ) -> Generator[tuple[list[Candidates], np.ndarray], None, None]:
        """See `Step.drawn`."""
        if self._rows.of_tables or len(batch.tokens) > self._draw.rows:
            yield from super().drawn(batch, draws, count, numbers)
        else:
            yield from self._fed_back(batch, count, self._draw.begin(draws, numbers))

    def _fed_back(self, batch: Batch, count: int, choice: Choice[Found]) -> Generator[Found, None, None]:
        """Runs whose tokens the device chooses from the run before."""
        rows = len(batch.tokens)
        under_way: deque[int] = deque()
        mine, done, longest, room = 0, 0, 0, 0
        for index in range(count):
            with self._turn():
                if index == 0:
                    batch = self._greedy_batch(batch, count)
                    self._write_inputs(batch, rows, 0)
                    mine = self._runs
                    longest = int(batch.positions.max())
                    room = self.limits.context - longest
                elif self._runs != mine:
                    raise OptionError("the step has run something else since; ask for greedy tokens anew")
                if index >= room:
                    self._checked(replace(batch, positions=batch.positions + index))  # raises
                while done < min(count, room, index + (1 if self._watch.on else AHEAD)):
                    choice.before(done)
                    self._launch(Run.singly(rows, longest + done), choice.name, lambda: choice.plan(rows))
                    under_way.append(done % (AHEAD + 1))
                    choice.fetch(rows, under_way[-1])
                    done += 1
                found = choice.take(rows, under_way.popleft())
            yield found

    def _greedy_batch(self, batch: Batch, count: int) -> Batch:
        """Checked."""
        outputs = np.arange(len(batch.tokens), dtype=np.int32)
        batch = self._checked(replace(batch, outputs=outputs))
        if len(batch.parts) < len(batch.tokens):
            raise OptionError("greedy tokens are of different rows")
        if count > 1 and batch.units_in is not None and (batch.units_in[:, batch.rows] < 0).any():
            raise OptionError("greedy tokens need two units a row, which change their roles")
        return batch

    def _write_inputs(self, batch: Batch, rows: int, first: int) -> None:
        self._runs += 1
        self._watch.tokens = len(batch.tokens)
        self._device.write(self._step_buffer, 0, self._inputs.encode(batch, rows, first))
        if first == 0:
            self._rows.write(self._device, self._arena, batch)

    def _hidden(self, view: View, which: np.ndarray) -> np.ndarray:
        place = self._places.view(view)
        rows = [
            self._device.read(self._arena, 4 * (place.base + int(row) * place.stride), 4 * view.width).view(np.float32)
            for row in which
        ]
        return np.stack(rows) if rows else np.empty((0, view.width), np.float32)

    # states

    def _grow(self, group: int, count: int) -> None:
        self._states.grow(group, count)

    def _put_table(self, group: int, row: int, first: int, ids: np.ndarray) -> None:
        if ids.size:
            self._host_tables[self._tables[group], row, first : first + len(ids)] = ids
            word = self._inputs.table(self._tables[group], row) + first
            self._device.write(self._step_buffer, 4 * word, np.ascontiguousarray(ids, np.int32))

    def _copy(self, group: int, pairs: Sequence[tuple[int, int]], positions: int) -> None:
        self._states.copy(group, pairs)

    def _read(self, group: int, ids: Sequence[int]) -> np.ndarray:
        return self._states.read(group, ids)

    def _write(self, group: int, ids: Sequence[int], data: np.ndarray) -> None:
        self._states.write(group, ids, data)

    # watching and timing

    def watch_routes(self, on: bool) -> None:
        with self._lock:
            if not self._closed:
                self._watch.switch(on)

    def routes(self) -> list[RoutedLayer]:
        with self._lock:
            return [] if self._closed else self._watch.read()

    def profile(self, tokens: int, position: int) -> tuple[KernelTime, ...]:
        """See `Step.profile`."""
        with self._turn():
            ids = np.arange(tokens, dtype=np.int32) * 97 % self.program.vocab_size  # alike, they would choose the same experts
            batch = Batch.of(ids, position, [tokens - 1])
            if self.fixed:
                fixed = [[self.sizes[i]] * self.limits.rows for i, group in enumerate(self.groups) if not group.paged]
                units = np.array(fixed, np.int32)
                batch = replace(batch, units_in=units, units_out=units + 1)
            with self._own_states(position + tokens):
                batch = self._checked(batch)
                self._write_inputs(batch, 1, 0)
                timed = timed_of(self._launches, Run.of(batch, 1), self._watch.share_of_experts(tokens))
                timed["top_k"] = Timed(self._top_k.plan(1))
                return kernel_times(self._device, timed)

    @contextmanager
    def _own_states(self, positions: int) -> Iterator[None]:
        """Row 0 has pages that are nobody's, and there are two units more, so that nothing of value is written over."""
        sizes, tables = list(self.sizes), self._host_tables[:, 0].copy()
        pages = -(-positions // PAGE)
        try:
            for index, group in enumerate(self.groups):
                self.grow(index, sizes[index] + (pages if group.paged else 2))
                if group.paged:
                    self.put_table(index, 0, 0, np.arange(sizes[index], sizes[index] + pages))
            yield
        finally:
            for index, number in self._tables.items():
                self._put_table(index, 0, 0, tables[number])
            for index, size in enumerate(sizes):
                self.grow(index, size)

    def copy_rate(self) -> float:
        """See `Step.copy_rate`."""
        with self._turn():
            return copy_rate(self._device)

    def _close(self) -> None:
        self._device.settle()
        self._replay.forget()
        self._watch.close()
        self._states.close()
        for pinned in (self._found, self._argmax, self._top_k, self._draw):
            pinned.close()
        for buffer in (*self._made, *self._weights):
            self._device.free(buffer)
        self._launches = []
