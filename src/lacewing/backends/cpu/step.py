"""A compiled step on the CPU: the packed table of ops, their arguments, and the call that runs them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lacewing.backends.batch import Batch
from lacewing.backends.choice import RowMaxima
from lacewing.backends.cpu.arguments import LARGEST_PIECE, LINEAR, OP, ROUTE, SCRATCH_BYTES, STATE, STEP, STEP_ABORT, STEP_STOP
from lacewing.backends.cpu.experts import ExpertWalk
from lacewing.backends.cpu.isa import host_isa
from lacewing.backends.cpu.lowering.addresses import in_memory
from lacewing.backends.cpu.lowering.context import LoweredOp, Lowering
from lacewing.backends.cpu.lowering.stages import columns, ranges
from lacewing.backends.cpu.memory import aligned
from lacewing.backends.cpu.pool import ThreadPool, head_of
from lacewing.backends.paging import interleave
from lacewing.backends.stages import not_alone
from lacewing.backends.step import RoutedLayer, Step
from lacewing.program.operands import View
from lacewing.program.ops import Embed


class CpuStep(Step):
    """See backends.step.Step.

    It holds the bytes of the weights that its arguments point to: they outlive a change of residency until `rebind`.
    """

    def __init__(self, lowering: Lowering, kernels: dict[str, int], threads: int, nodes: tuple[int, ...] = ()):
        super().__init__(lowering.program, lowering.limits)
        self._lowering, self._store, self._kernels = lowering, lowering.store, kernels
        for group in self._store.groups:
            interleave(group.reserved.memory, nodes)
        self._bound: list[list[np.ndarray]] = []
        lowering.addresses = kernels
        self._vocab = lowering.program.vocab_size
        chunk = self.limits.chunk
        self._inputs = aligned(16 * chunk, np.int32).reshape(4, chunk)  # ids, rows, positions, outputs
        self._scratch = aligned(SCRATCH_BYTES * threads)
        ids, rows, positions, picks = (int(each.ctypes.data) for each in self._inputs)
        self._state = aligned(8 * len(STATE), np.int64)
        self._state[:] = STATE._replace(
            tokens=0, outputs=0, ids=ids, rows=rows, positions=positions, picks=picks, scratch=int(self._scratch.ctypes.data)
        )
        count = len(lowering.ops)
        self._counters = aligned(8 * count, np.int64)
        self._arguments = [aligned(8 * len(op.layout), np.int64) for op in lowering.ops]
        self._table = aligned(8 * len(OP) * count, np.int64).reshape(count, len(OP))
        for row, (op, arguments) in enumerate(zip(lowering.ops, self._arguments, strict=True)):
            self._table[row] = [kernels[op.kernel], arguments.ctypes.data, op.barrier and row > 0, 0]
        self._table_at, self._counters_at = int(self._table.ctypes.data), int(self._counters.ctypes.data)
        self._head = head_of(count, self._table, self._state, self._counters, threads)
        self._experts = ExpertWalk(lowering, int(self._head.ctypes.data) + STEP_STOP)
        for place, address in self._experts.fetches.places.items():
            self._table[place, OP.fetch // 8] = address
        self._bind(first=True)
        self._end = lowering.program_ops  # what comes behind is run by itself
        self._chain_linears()
        logits = lowering.memory.buffers.get("logits")
        self._logits = np.empty((0,), np.float32) if logits is None else logits.view(np.float32)
        self._pool = ThreadPool(self._head, threads, kernels)
        self._embedded = next((op.out for op in self.program.ops if isinstance(op, Embed)), None)
        self._stages = list(zip(lowering.stages, ranges(lowering.stages, lowering.ops), strict=True))
        self._maxima = _maxima_of(lowering)
        # The system gives the memory of a row of logits to the run that first asks for it, and an answer asks for one.
        unused = 0 if logits is None else max(0, logits.nbytes - 4 * self._vocab)
        self.buffer_bytes = lowering.memory.nbytes + self._scratch.nbytes - unused

    @property
    def ops(self) -> list[LoweredOp]:
        return self._lowering.ops

    def limit_threads(self, threads: int) -> None:
        """Run on so many threads from now on, at most those that it was compiled for."""
        with self._turn(keep_abort=True):
            self._pool.limit(threads)

    def rebind(self) -> None:
        """Look up the addresses of all weights again."""
        with self._turn(keep_abort=True):
            self._bind(first=False)

    def _bind(self, first: bool) -> None:
        bound = [in_memory(weight) for weight in self._lowering.weights.values()]
        self._bound += bound  # the old ones stay as well, should it fail half-way
        for row, (op, arguments) in enumerate(zip(self._lowering.ops, self._arguments, strict=True)):
            if first and "counter" in op.arguments:
                op.set(counter=self._counters_at + 8 * row)
            op.write(arguments, everything=first)
        self._experts.bind()
        self._bound = bound

    def _chain_linears(self) -> None:
        """Tell every linear which one comes next, so that it can ask for its weights."""
        following = 0
        pairs = list(zip(self._lowering.ops, self._arguments, strict=True))[: self._end]
        for op, arguments in reversed(pairs):
            if op.kernel == "gemm.linear.linear":
                arguments[LINEAR.next // 8] = following
                following = int(arguments.ctypes.data)

    # running

    def _run(self, batch: Batch) -> np.ndarray:
        if self._stages:
            raise not_alone()
        self._begin(batch)
        self._walk(0, self._end)
        self._experts.end_run(len(batch.tokens))
        return self._rows()

    def _begin(self, batch: Batch) -> None:
        self._store.begin(batch)
        self._experts.begin_run()
        for rows in self._lowering.gathered:
            rows.bring(batch.tokens, self._stop_if_aborted)
        count, wanted, inputs = len(batch.tokens), len(batch.outputs), self._inputs
        inputs[0, :count], inputs[1, :count], inputs[2, :count] = batch.tokens, batch.rows, batch.positions
        inputs[3, :wanted] = batch.outputs
        if (given := batch.given) is not None and self._embedded is not None:
            columns(self._lowering.memory, self._embedded, count)[given[0]] = given[1]
        self._state[0], self._state[1] = count, wanted

    def _walk(self, first: int, end: int) -> None:
        """Run some ops of the table; those of experts that are not in RAM when they have been read. Raises Cancelled, and
        ModelFormatError if a file cannot be read."""
        self._head[STEP_ABORT // 8] = 0
        self._stop_if_aborted()  # by `abort` before the word was cleared
        tokens = int(self._state[STATE.tokens // 8])
        while first < end:
            self._run_ops(first, end)
            stopped = int(self._head[STEP_STOP // 8])
            first = self._experts.fetch(stopped, tokens, self._run_ops, self._stop_if_aborted) if stopped else end

    def _run_ops(self, first: int, end: int) -> None:
        head = self._head
        head[STEP.ops // 8], head[STEP.table // 8] = end - first, self._table_at + first * 8 * len(OP)
        head[STEP.counters // 8] = self._counters_at + first * 8
        self._pool.run()
        self._stop_if_aborted()

    def abort(self) -> None:
        super().abort()
        self._head[STEP_ABORT // 8] = 1

    def _stage(self, index: int, received: Sequence[np.ndarray]) -> list[np.ndarray]:
        memory, count = self._lowering.memory, int(self._state[STATE.tokens // 8])
        stage, (first, end) = self._stages[index]
        for view, values in zip(stage.received, received, strict=True):
            columns(memory, view, count)[:] = values
        if end > first:
            self._walk(first, end)
        return [columns(memory, view, count) for view in stage.sent]

    def logits(self) -> np.ndarray:
        with self._turn(keep_abort=True):
            return self._rows()

    def _rows(self) -> np.ndarray:
        wanted = int(self._state[STATE.outputs // 8])
        if self._maxima is not None and (self.maxima is None or len(self.maxima.ids) != wanted):
            self.maxima = self._maxima.of(slice(wanted))
        return self._logits[: wanted * self._vocab].reshape(wanted, self._vocab)

    def _hidden(self, view: View, which: np.ndarray) -> np.ndarray:
        return np.asarray(columns(self._lowering.memory, view, int(self._state[STATE.tokens // 8]))[which])

    def watch_routes(self, on: bool) -> None:
        with self._turn(keep_abort=True):  # a step that runs writes to the arrays of before
            for router in self._lowering.routers:
                router.watch(on, self.limits.chunk)
            for op, arguments in zip(self._lowering.ops, self._arguments, strict=True):
                if op.layout is ROUTE:  # the weights of others may be moving now; who moves them rebinds
                    op.write(arguments, everything=False)

    def routes(self) -> list[RoutedLayer]:
        with self._turn(keep_abort=True):
            count = int(self._state[STATE.tokens // 8])
            watched = (router for router in self._lowering.routers if router.ids.size)
            return [RoutedLayer(router.layer, router.ids[:count], router.probabilities[:count]) for router in watched]

    # states

    def _grow(self, group: int, count: int) -> None:
        self._store.grow(group, self.sizes[group], count)

    def _put_table(self, group: int, row: int, first: int, ids: np.ndarray) -> None:
        self._store.groups[group].table[row, first : first + len(ids)] = ids

    def _copy(self, group: int, pairs: Sequence[tuple[int, int]], positions: int) -> None:
        for source, to in pairs:
            self._store.groups[group].copy(source, to, positions)

    def _read(self, group: int, ids: Sequence[int]) -> np.ndarray:
        store = self._store.groups[group]
        return np.stack([store.read(each) for each in ids]) if len(ids) else np.empty((0, store.group.nbytes), np.uint8)

    def _write(self, group: int, ids: Sequence[int], data: np.ndarray) -> None:
        for each, page in zip(ids, data, strict=True):
            self._store.groups[group].write(each, page)

    def _close(self) -> None:
        self._pool.close()
        self._experts.fetches.close()
        self._bound, self.maxima, self._maxima = [], None, None
        # Whoever still holds the closed step holds no memory: neither addresses of pages nor buffers.
        self._store.groups = []
        vars(self._lowering).clear()


def _maxima_of(lowering: Lowering) -> RowMaxima | None:
    """Where the kernels write those of as many rows as there may be; None: the program makes no logits."""
    buffers = lowering.memory.buffers
    if "largest" not in buffers:
        return None
    tops = buffers["tops"].view(np.float32).reshape(lowering.limits.chunk, -1)
    return RowMaxima(buffers["largest"].view(np.int64), tops, host_isa().lanes, LARGEST_PIECE)
