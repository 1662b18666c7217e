"""Norms of heads, rotations, scales by position and the writing of keys and values: one dispatch for a run of such ops.

Each of the ops would take a dispatch that costs more than its work. `collect` looks at the ops from the current one on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lacewing.backends.webgpu.compiler import Compiler, lowers
from lacewing.backends.webgpu.device import Slice
from lacewing.backends.webgpu.lowering import rows
from lacewing.backends.webgpu.stored import stored
from lacewing.errors import UnsupportedModelError
from lacewing.program import ops
from lacewing.program.ops import Op, View

WIDEST = 1024  # values of a head in workgroup memory
WEIGHTS = 3  # norm weights and rotations of a dispatch, so that there are at most 8 bindings
CHAINED = (ops.Norm, ops.Rope, ops.ScaleByPosition)


@dataclass
class Chain:
    """Heads of a view, and what happens to each: steps in their order, then perhaps a place in the store."""

    view: View
    heads: int
    steps: list[Op] = field(default_factory=list)
    store: str = ""  # "key" or "value"
    offset: int = 0  # values before it in the row
    last: bool = False  # of the row

    @property
    def width(self) -> int:
        return self.view.width // self.heads


def _overlap(a: View, b: View) -> bool:
    return a.buffer.name == b.buffer.name and a.start < b.start + b.width and b.start < a.start + a.width


class Collected:
    """The run of ops that one dispatch does; `indices` of them in the program."""

    def __init__(self) -> None:
        self.chains: list[Chain] = []
        self.indices: list[int] = []
        self.write: ops.WriteKeysValues | None = None

    def take(self, op: Op) -> bool:
        """Whether the op could join."""
        if isinstance(op, ops.WriteKeysValues):
            return self._take_write(op)
        if isinstance(op, ops.Norm) and (op.add is not None or op.out != op.x):
            return False
        assert isinstance(op, CHAINED)
        heads = None if isinstance(op, ops.ScaleByPosition) else op.heads
        return self._take_step(op, op.x, heads)

    def _take_step(self, op: Op, view: View, heads: int | None) -> bool:
        for chain in self.chains:
            if chain.view == view and heads in (None, chain.heads):
                chain.steps.append(op)
                return self._fits()
            if _overlap(chain.view, view):
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
        return len(weights) + len({step.rope.frequencies for step in steps if isinstance(step, ops.Rope)}) <= 2 * WEIGHTS - 1

    def _take_write(self, op: ops.WriteKeysValues) -> bool:
        self.write = op
        return True

    def add_store(self, key_heads: int) -> bool:
        """Where parts of the chains go in the store; chains without steps for what is left. False: they do not fit the rows."""
        assert self.write is not None
        for view, store in ((self.write.k, "key"), (self.write.v, "value")):
            if view is None:
                continue
            inside = sorted((chain for chain in self.chains if _overlap(chain.view, view)), key=lambda chain: chain.view.start)
            if any(chain.view == view and chain.heads == key_heads for chain in inside):
                inside[0].store, inside[0].last = store, True
            elif not inside and view.width // key_heads <= WIDEST:
                self.chains.append(Chain(view, key_heads, [], store, 0, True))
            elif key_heads == 1 and all(chain.heads == 1 for chain in inside):
                at = view.start  # the parts must be all of the row, one after another, and begin with whole words
                for chain in inside:
                    if chain.view.start != at or at % 2:
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
        if not isinstance(op, (*CHAINED, ops.WriteKeysValues)):
            break
        touched = op.views(op.reads + op.writes)
        if any(_overlap(view, other) for view in touched for other in passed) or at in compiler.done:
            break
        tried = _with(found, op)
        if tried is None:
            break
        found = tried
        found.indices.append(at)
        if found.write is not None:
            key_heads = program.layers[found.write.layer].key_heads
            stored_in = _copy(found)
            return stored_in if stored_in.add_store(key_heads) else _without_write(found)
    return found


def _copy(found: Collected) -> Collected:
    made = Collected()
    made.chains = [Chain(c.view, c.heads, list(c.steps), c.store, c.offset, c.last) for c in found.chains]
    made.indices, made.write = list(found.indices), found.write
    return made


def _with(found: Collected, op: Op) -> Collected | None:
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
    _dispatch(compiler, found)
    compiler.done.update(found.indices)
    return True


def _dispatch(compiler: Compiler, found: Collected) -> None:
    weights: dict[str, Slice] = {}
    tables: dict[bytes, Slice] = {}
    chains, first = [], 0
    for chain in found.chains:
        steps = [_step(compiler, step, weights, tables) for step in chain.steps]
        chains.append({
            "place": compiler.at(chain.view), "width": chain.width, "steps": steps, "store": chain.store, "offset": chain.offset,
            "last": chain.last, "first": first, "end": first + chain.heads,
        })  # fmt: skip
        first += chain.heads
    widest = max(chain.width for chain in found.chains)
    kv = stored(compiler.program, compiler.limits, found.write.layer) if found.write is not None else None
    constants = {
        "chains": chains, "weights": len(weights), "tables": len(tables), "kv": kv, "widest": widest,
        "threads": min(128, max(32, 1 << ((widest - 1) // 2).bit_length())),
    }  # fmt: skip
    store = [compiler.keys_values[found.write.layer]] if found.write is not None else []
    compiler.dispatch("heads", constants, [*weights.values(), *tables.values(), *store], lambda run: (first, run.tokens, 1))
    for chain in found.chains:
        if chain.steps:
            compiler.written(chain.view)


def _step(compiler: Compiler, op: Op, weights: dict[str, Slice], tables: dict[bytes, Slice]) -> dict[str, Any]:
    """What the kernel needs of an op; `weights` and `tables` collect what it binds."""
    if isinstance(op, ops.Norm):
        if op.weight is not None:
            weights.setdefault(op.weight, compiler.vector(op.weight))
        weight = None if op.weight is None else list(weights).index(op.weight)
        return {"kind": "norm", "eps": op.eps, "offset": op.weight_offset, "weight": weight}
    if isinstance(op, ops.Rope):
        turns = rows.fixed_turns(op.rope.frequencies)
        tables.setdefault(turns.tobytes(), compiler.constant(turns))
        rope = op.rope
        return {
            "kind": "rope", "pairs": len(rope.frequencies), "start": op.start, "adjacent": rope.adjacent,
            "magnitude": rope.magnitude, "table": list(tables).index(turns.tobytes()),
        }  # fmt: skip
    assert isinstance(op, ops.ScaleByPosition)
    return {"kind": "scale", "beta": op.beta, "length": op.length, "offset": op.offset}


@lowers(ops.Norm)
def norm(compiler: Compiler, op: ops.Norm) -> None:
    """Takes the place of `rows.norm` where more ops follow that fit."""
    if not lower_run(compiler, 2):
        rows.norm(compiler, op)


@lowers(ops.Rope)
def rope(compiler: Compiler, op: ops.Rope) -> None:
    if not lower_run(compiler, 2):
        rows.rope(compiler, op)


@lowers(ops.ScaleByPosition)
def scale_by_position(compiler: Compiler, op: ops.ScaleByPosition) -> None:
    lower_run(compiler, 1)


@lowers(ops.WriteKeysValues)
def write_keys_values(compiler: Compiler, op: ops.WriteKeysValues) -> None:
    if not lower_run(compiler, 1):
        raise UnsupportedModelError(f"keys of more than {WIDEST} values a head are too wide for the GPU; use --backend cpu")
