"""Norms of heads, rotations, scales by position and the writing of keys and values: one dispatch for a run of such ops.

Each of the ops would take a dispatch that costs more than its work. `collect` looks at the ops from the current one on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from lacewing.backends.gpu.fusions import unused
from lacewing.backends.gpu.pages import PageLayout
from lacewing.backends.gpu.turns import fixed_turns
from lacewing.backends.webgpu.device.device import Slice
from lacewing.backends.webgpu.lowering import rows
from lacewing.backends.webgpu.lowering.attention import Before, can_prepare, lower_attention, prepared_runs
from lacewing.backends.webgpu.lowering.compiler import RULES, Compiler
from lacewing.errors import UnsupportedModelError
from lacewing.program import ops
from lacewing.program.ops import View

WIDEST = 1024  # values of a head in workgroup memory
BOUND = 4  # norm weights and rotations of a dispatch, so that there are at most 8 bindings, sinks or sums among them
Step = ops.Norm | ops.Rope | ops.Hadamard | ops.ScaleByPosition


@dataclass
class Chain:
    """Heads of a view, and what happens to each: steps in their order, then perhaps a place in the store."""

    view: View
    heads: int
    steps: list[Step] = field(default_factory=list)
    store: str = ""  # "key", "value" or "index"
    offset: int = 0  # values before it in the row
    last: bool = False  # of the row

    @property
    def width(self) -> int:
        return self.view.width // self.heads


class Collected:
    """The run of ops that one dispatch does; `indices` of them in the program."""

    def __init__(self) -> None:
        self.chains: list[Chain] = []
        self.indices: list[int] = []
        self.write: ops.WriteKeysValues | None = None

    def take(self, op: Step | ops.WriteKeysValues) -> bool:
        """Whether the op could join."""
        if isinstance(op, ops.WriteKeysValues):
            self.write = op
            return True
        if isinstance(op, ops.Norm) and op.out != op.x:
            return False
        heads = None if isinstance(op, ops.ScaleByPosition) else op.heads
        return self._take_step(op, op.x, heads)

    def _take_step(self, op: Step, view: View, heads: int | None) -> bool:
        for chain in self.chains:
            if chain.view == view and heads in (None, chain.heads):
                chain.steps.append(op)
                return self._fits()
            if chain.view.overlaps(view):
                return False
        if heads is None:  # any parts will do
            heads = next(n for n in range(1, view.width + 1) if view.width % n == 0 and view.width // n <= 256)
        if view.width // heads > WIDEST:
            return False
        self.chains.append(Chain(view, heads, [op]))
        return self._fits()

    def _fits(self) -> bool:
        steps = [step for chain in self.chains for step in chain.steps]
        weights = {step.weight for step in steps if isinstance(step, ops.Norm) and step.weight is not None}
        return len(weights) + len({step.rope.frequencies for step in steps if isinstance(step, ops.Rope)}) <= BOUND

    def add_store(self, write: ops.WriteKeysValues, kv: PageLayout) -> bool:
        """Where parts of the chains go in the store; chains without steps for what is left. False: they do not fit the rows."""
        for view, store in ((write.k, "key"), (write.v, "value"), (write.index, "index")):
            if view is None:
                continue
            key_heads, aligned = 1 if store == "index" else kv.key_heads, 64 if kv.dtype == "q8_0" else 2
            inside = sorted((chain for chain in self.chains if chain.view.overlaps(view)), key=lambda chain: chain.view.start)
            if any(chain.view == view and chain.heads == key_heads for chain in inside):
                inside[0].store, inside[0].last = store, True
            elif not inside and view.width // key_heads <= WIDEST:
                self.chains.append(Chain(view, key_heads, [], store, 0, True))
            elif key_heads == 1 and all(chain.heads == 1 for chain in inside):
                at = view.start  # the parts must be all of the row, one after another, and begin with whole words
                for chain in inside:
                    if chain.view.start != at or (at - view.start) % aligned:
                        return False
                    chain.store, chain.offset = store, at - view.start
                    at += chain.view.width
                if at != view.start + view.width:
                    return False
                inside[-1].last = True
            else:
                return False
        return True


def collect(compiler: Compiler, index: int) -> Collected:
    """The longest run of ops from `index` on that one dispatch can do. Writes are done before a `HeadLinear` that is between."""
    program, found, passed = compiler.program, Collected(), list[View]()
    for at in range(index, len(program.ops)):
        op = program.ops[at]
        if isinstance(op, ops.HeadLinear) and found.indices:
            passed += [op.x, op.out]
            continue
        if not isinstance(op, Step | ops.WriteKeysValues) or _other_norm(compiler, op):
            break
        touched = op.views
        if any(view.overlaps(other) for view in touched for other in passed) or at in compiler.done:
            break
        tried = _with(found, op)
        if tried is None:
            break
        found = tried
        found.indices.append(at)
        if found.write is not None:
            stored_in = _copy(found)
            return stored_in if stored_in.add_store(found.write, compiler.page_layout(found.write.state)) else _without_write(found)
    return found


def _other_norm(compiler: Compiler, op: Step | ops.WriteKeysValues) -> bool:
    """Whether it is a LayerNorm, or a norm whose heads do not share their weights."""
    if isinstance(op, ops.Norm) and (op.centred or op.bias is not None):
        return True
    if not isinstance(op, ops.Norm) or op.weight is None or op.heads == 1:
        return False
    return compiler.program.weights[op.weight] == (op.x.width,)


def _copy(found: Collected) -> Collected:
    made = Collected()
    made.chains = [Chain(c.view, c.heads, list(c.steps), c.store, c.offset, c.last) for c in found.chains]
    made.indices, made.write = list(found.indices), found.write
    return made


def _with(found: Collected, op: Step | ops.WriteKeysValues) -> Collected | None:
    tried = _copy(found)
    return tried if tried.take(op) else None


def _without_write(found: Collected) -> Collected:
    found.write = None
    found.indices.pop()
    return found


def lower_run(compiler: Compiler, least: int) -> bool:
    """Does the run of ops at the compiler's index in one dispatch. False, and nothing is done: there are fewer than `least`."""
    found = collect(compiler, compiler.index)
    if len(found.indices) < least:
        return False
    parts = _Parts(compiler)
    chains: list[dict[str, Any]] = []
    first = 0
    for chain in found.chains:
        chains.append({
            "place": compiler.at(chain.view), "width": chain.width, "steps": [parts.step(step) for step in chain.steps],
            "store": chain.store, "offset": chain.offset, "last": chain.last, "first": first, "end": first + chain.heads,
        })  # fmt: skip
        first += chain.heads
    widest = max(chain.width for chain in found.chains)
    constants = {
        "chains": chains, "weights": len(parts.weights), "tables": len(parts.tables), "widest": widest,
        "kv": compiler.page_layout(found.write.state) if found.write is not None else None,
        "threads": min(128, max(32, 1 << ((widest - 1) // 2).bit_length())),
    }  # fmt: skip
    store = [compiler.states.buffers[found.write.state]] if found.write is not None else []
    after = _attention_after(compiler, found)
    prepares = None if after is None else prepared_runs(compiler, after[1])
    compiler.dispatch(
        "heads",
        constants,
        [*parts.bindings, *store],
        lambda run: None if prepares is not None and prepares(run) else (first, run.tokens, 1),
    )
    for chain in found.chains:
        if chain.steps:
            compiler.written(chain.view)
    compiler.done.update(found.indices)
    if after is not None:
        index, op, k, v = after
        by_view: dict[View, list[dict[str, Any]]] = {
            chain.view: made["steps"] for chain, made in zip(found.chains, chains, strict=True)
        }
        steps = tuple(zip_longest(by_view.get(op.q, []), by_view[k]))
        places = compiler.at(k), compiler.at(v)
        before = Before(*places, steps, tuple(parts.bindings), len(parts.weights), len(parts.tables))
        lower_attention(compiler, op, before)
        compiler.done.add(index)
    return True


def _attention_after(compiler: Compiler, found: Collected) -> tuple[int, ops.Attention, View, View] | None:
    """The attention that follows a run, with its index and the views of new keys and values.

    None where the attention cannot do the run's work for one token, or somebody else sees what the run changes.
    """
    write, index = found.write, max(found.indices, default=0) + 1
    if write is None or write.v is None or found.indices[-1] - found.indices[0] + 1 != len(found.indices):
        return None
    op = compiler.program.ops[index] if index < len(compiler.program.ops) else None
    if not isinstance(op, ops.Attention) or op.state != write.state or not can_prepare(compiler, op):
        return None
    heads = {op.q: op.heads, write.k: op.key_heads, write.v: op.key_heads}
    whole = all(heads.get(chain.view) == chain.heads for chain in found.chains)
    plain = all(not chain.steps for chain in found.chains if chain.view == write.v)
    unseen = all(unused(compiler.program.ops, index + 1, view) for view in (op.q, write.k))
    return (index, op, write.k, write.v) if whole and plain and unseen else None


class _Parts:
    """What a kernel needs of steps, and what it binds for them."""

    def __init__(self, compiler: Compiler):
        self.compiler = compiler
        self.weights: dict[str, Slice] = {}
        self.tables: dict[bytes, Slice] = {}

    @property
    def bindings(self) -> list[Slice]:
        return [*self.weights.values(), *self.tables.values()]

    def step(self, op: Step) -> dict[str, Any]:
        if isinstance(op, ops.Norm):
            if op.weight is not None:
                self.weights.setdefault(op.weight, self.compiler.vector(op.weight))
            weight = None if op.weight is None else list(self.weights).index(op.weight)
            return {"kind": "norm", "eps": op.eps, "offset": op.weight_offset, "weight": weight}
        if isinstance(op, ops.Rope):
            turns = fixed_turns(op.rope.frequencies)
            self.tables.setdefault(turns.tobytes(), self.compiler.constant(turns))
            rope = op.rope
            return {
                "kind": "rope", "pairs": len(rope.frequencies), "start": op.start, "adjacent": rope.adjacent,
                "magnitude": rope.magnitude, "table": list(self.tables).index(turns.tobytes()),
            }  # fmt: skip
        if isinstance(op, ops.Hadamard):
            return {"kind": "hadamard", "size": op.size}
        return {"kind": "scale", "beta": op.beta, "length": op.length, "offset": op.offset}


@RULES.rule(ops.Norm)
def norm(compiler: Compiler, op: ops.Norm) -> None:
    if not lower_run(compiler, 2):
        rows.norm(compiler, op)


@RULES.rule(ops.Rope)
def rope(compiler: Compiler, op: ops.Rope) -> None:
    if not lower_run(compiler, 2):
        rows.rope(compiler, op)


@RULES.rule(ops.Hadamard, ops.ScaleByPosition)
def alone_or_not(compiler: Compiler, op: ops.Hadamard | ops.ScaleByPosition) -> None:
    if not lower_run(compiler, 1):
        raise UnsupportedModelError(f"heads of more than {WIDEST} values are too wide for the GPU; use `backend='cpu'`")


@RULES.rule(ops.WriteKeysValues)
def write_keys_values(compiler: Compiler, op: ops.WriteKeysValues) -> None:
    if not lower_run(compiler, 1):
        raise UnsupportedModelError(f"keys of more than {WIDEST} values a head are too wide for the GPU; use `backend='cpu'`")
