"""A compiled step on the CPU: the packed table of ops, their arguments, and the call that runs them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from lacewing.backends.base import RoutedLayer, StepLimits
from lacewing.backends.cpu.arguments import LINEAR, OP, ROUTE, SCRATCH_BYTES, STATE, STEP
from lacewing.backends.cpu.lowering.addresses import in_memory
from lacewing.backends.cpu.lowering.context import LoweredOp, Lowering
from lacewing.backends.cpu.lowering.stages import columns, ranges
from lacewing.backends.cpu.memory import aligned
from lacewing.backends.cpu.pool import ThreadPool, head_of
from lacewing.backends.cpu.state import read_slot, write_slot
from lacewing.backends.staged import not_alone
from lacewing.errors import OptionError


class CpuStep:
    """See backends.base.Step. Whoever comes while it runs waits.

    It holds the bytes of the weights that its arguments point to: they outlive a change of residency until `rebind`.
    """

    def __init__(self, lowering: Lowering, kernels: dict[str, int], threads: int):
        self.limits: StepLimits = lowering.limits
        self._lowering, self._kernels = lowering, kernels
        self._lock = threading.Lock()
        self._bound: list[list[np.ndarray]] = []
        lowering.addresses = kernels
        self._vocab = lowering.program.vocab_size
        chunk = self.limits.chunk
        self._inputs = aligned(16 * chunk, np.int32).reshape(4, chunk)  # ids, slots, positions, outputs
        self._scratch = aligned(SCRATCH_BYTES * threads)
        ids, slots, positions, rows = (int(each.ctypes.data) for each in self._inputs)
        scratch, context = int(self._scratch.ctypes.data), self.limits.context
        self._state = aligned(8 * len(STATE), np.int64)
        self._state[:] = STATE._replace(
            tokens=0, outputs=0, ids=ids, slots=slots, positions=positions, rows=rows, scratch=scratch, context=context
        )
        count = len(lowering.ops)
        self._counters = aligned(8 * count, np.int64)
        self._arguments = [aligned(8 * len(op.layout), np.int64) for op in lowering.ops]
        self._table = aligned(8 * len(OP) * count, np.int64).reshape(count, len(OP))
        for row, (op, arguments) in enumerate(zip(lowering.ops, self._arguments, strict=True)):
            self._table[row] = [kernels[op.kernel], arguments.ctypes.data, op.barrier and row > 0, 0]
        self.rebind(first=True)
        self._chain_linears()
        self._head = head_of(count, self._table, self._state, self._counters, threads)
        logits = lowering.memory.buffers.get("logits")
        self._logits = np.empty((0,), np.float32) if logits is None else logits.view(np.float32)
        self._pool = ThreadPool(self._head, threads, kernels)
        self._closed = False
        self._stages = list(zip(lowering.stages, ranges(lowering.stages, lowering.ops), strict=True))
        self.kv_bytes = sum(memory.nbytes for memory in (*lowering.keys, *lowering.values))
        # The system gives the memory of a row of logits to the run that first asks for it, and an answer asks for one.
        unused = 0 if logits is None else max(0, logits.nbytes - 4 * self._vocab)
        self.buffer_bytes = lowering.memory.nbytes + self._scratch.nbytes - unused

    @property
    def ops(self) -> list[LoweredOp]:
        return self._lowering.ops

    def rebind(self, first: bool = False) -> None:
        """Look up the addresses of all weights again."""
        with self._lock:
            self._bind(first)

    def _bind(self, first: bool) -> None:
        bound = [in_memory(weight) for weight in self._lowering.weights.values()]
        self._bound += bound  # the old ones stay as well, should it fail half-way
        for row, (op, arguments) in enumerate(zip(self._lowering.ops, self._arguments, strict=True)):
            if first and "counter" in op.arguments:
                op.set(counter=int(self._counters.ctypes.data) + 8 * row)
            op.write(arguments, everything=first)
        self._bound = bound

    def _chain_linears(self) -> None:
        """Tell every linear which one comes next, so that it can ask for its weights."""
        following = 0
        for op, arguments in zip(reversed(self._lowering.ops), reversed(self._arguments), strict=True):
            if op.kernel == "gemm.linear.linear":
                arguments[LINEAR.next // 8] = following
                following = int(arguments.ctypes.data)

    def watch_routes(self, on: bool) -> None:
        with self._lock:  # a step that runs writes to the arrays of before
            for router in self._lowering.routers:
                router.watch(on, self.limits.chunk)
            for op, arguments in zip(self._lowering.ops, self._arguments, strict=True):
                if op.layout is ROUTE:  # the weights of others may be moving now; who moves them rebinds
                    op.write(arguments, everything=False)

    def routes(self) -> list[RoutedLayer]:
        count = int(self._state[STATE.tokens // 8])
        watched = (router for router in self._lowering.routers if router.ids.size)
        return [RoutedLayer(router.layer, router.ids[:count], router.probabilities[:count]) for router in watched]

    def run(self, tokens: np.ndarray, slots: np.ndarray, positions: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        if self._stages:
            raise not_alone()
        with self._lock:
            self._begin(tokens, slots, positions, outputs)
            self._pool.run()
        return self.logits()

    def _begin(self, tokens: np.ndarray, slots: np.ndarray, positions: np.ndarray, outputs: np.ndarray) -> None:
        self._check(tokens, slots, positions, outputs)
        self._refuse_closed()
        count, wanted, inputs = len(tokens), len(outputs), self._inputs
        inputs[0, :count], inputs[1, :count], inputs[2, :count], inputs[3, :wanted] = tokens, slots, positions, outputs
        self._state[0], self._state[1] = count, wanted

    def _refuse_closed(self) -> None:
        if self._closed:  # its workers are gone: waiting for them would never end
            raise OptionError("the model has been closed")

    def begin(self, tokens: np.ndarray, slots: np.ndarray, positions: np.ndarray, outputs: np.ndarray) -> None:
        """See backends.staged.Staged."""
        with self._lock:
            self._begin(tokens, slots, positions, outputs)

    def stage(self, index: int, received: Sequence[np.ndarray]) -> list[np.ndarray]:
        with self._lock:
            self._refuse_closed()
            memory, count = self._lowering.memory, int(self._state[STATE.tokens // 8])
            stage, (first, end) = self._stages[index]
            for view, values in zip(stage.received, received, strict=True):
                columns(memory, view, count)[:] = values
            if end > first:
                self._head[STEP.ops // 8], self._head[STEP.table // 8] = end - first, self._table[first:].ctypes.data
                self._head[STEP.counters // 8] = self._counters[first:].ctypes.data
                self._pool.run()
            return [columns(memory, view, count) for view in stage.sent]

    def logits(self) -> np.ndarray:
        """Those of the last run, float32 (R, V)."""
        wanted = int(self._state[STATE.outputs // 8])
        return self._logits[: wanted * self._vocab].reshape(wanted, self._vocab)

    def _check(self, tokens: np.ndarray, slots: np.ndarray, positions: np.ndarray, outputs: np.ndarray) -> None:
        count, limits = len(tokens), self.limits
        if not 1 <= count <= limits.chunk or len(outputs) > limits.chunk:
            raise OptionError(f"a step takes 1 to {limits.chunk} tokens and outputs, not {count} and {len(outputs)}")
        if len(slots) != count or len(positions) != count:
            raise OptionError(f"{count} tokens need as many slots and positions, not {len(slots)} and {len(positions)}")
        bounds = (("token", tokens, self._vocab), ("slot", slots, limits.slots), ("position", positions, limits.context))
        for name, values, end in (*bounds, ("output row", outputs, count)):
            if len(values) and not (int(np.min(values)) >= 0 and int(np.max(values)) < end):
                raise OptionError(f"{name}s must be from 0 to {end - 1}; got {int(np.min(values))} to {int(np.max(values))}")

    def read_slot(self, slot: int, count: int) -> np.ndarray:
        """See backends.base.KeepsSlots."""
        return read_slot(self._lowering, slot, count)

    def write_slot(self, slot: int, count: int, data: np.ndarray) -> None:
        """See backends.base.KeepsSlots."""
        write_slot(self._lowering, slot, count, data)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._pool.close()
            self._bound = []
            vars(self._lowering).clear()  # its rules refer to it: keys and values would stay until cycles are collected
