"""Rules of the checker for ops on pages: what is stored, what an index chooses, what attention reads."""

from __future__ import annotations

import math

from lacewing.options import KV_TYPES
from lacewing.program import ops
from lacewing.program.checker import Checker, require
from lacewing.program.states import Q8_BLOCK, Chunk, Window


def write_keys_values(c: Checker, op: ops.WriteKeysValues) -> None:
    state = c.paged(op.state)
    require(op.state not in c.stored, f"state {op.state} is written twice")
    for part in state.parts:
        require(part.heads >= 1 and part.width >= 1 and part.dtype in KV_TYPES, f"{part} cannot be stored")
        require(part.dtype != "q8_0" or part.width % Q8_BLOCK == 0, f"{part} is not whole blocks of {Q8_BLOCK}")
    names = tuple(part.name for part in state.parts)
    needed = (("keys",) if state.latent else ("keys", "values")) + (() if op.index is None else ("index",))
    require(names == needed, f"state {op.state} has the parts {names}, not {needed}")
    require(op.index is None or state.parts[-1].heads == 1, "the index has one head")
    views = [view for view in (op.k, op.v, op.index) if view is not None]
    require(len(views) == len(names), "v is None just where the values are in the keys")
    for view, part in zip(views, state.parts, strict=True):
        require(view.width == part.heads * part.width, f"{ops.show(view)} has width {view.width}, for {part}")
    c.stored.add(op.state)


def select_keys(c: Checker, op: ops.SelectKeys) -> None:
    state = c.paged(op.state)
    index = state.part("index")
    require(op.state in c.stored, f"state {op.state} is read before it is written")
    require(index is not None and op.heads >= 1 and op.q.width == op.heads * index.width, f"q has width {op.q.width}, for {index}")
    require(op.weights.width == op.heads, f"{op.weights.width} weights for {op.heads} heads")
    require(state.reach is None, "what is chosen must be within reach")
    require(not any(op.chosen.overlaps(view) for view in (op.q, op.weights)), "chosen overlaps q or weights")


def attention(c: Checker, op: ops.Attention) -> None:
    state = c.paged(op.state)
    keys, values = state.parts[0], state.part("values") or state.parts[0]
    require(op.state in c.stored, f"state {op.state} is read before its keys and values are written")
    require(op.key_heads == keys.heads, f"{op.key_heads} key heads, the state has {keys.heads}")
    require(op.key_heads >= 1 and op.heads % op.key_heads == 0, f"{op.heads} heads over {op.key_heads} key heads")
    require(op.q.width == op.heads * keys.width, f"q has width {op.q.width}")
    require(op.out.width == op.heads * op.value_width, f"out has width {op.out.width}")
    fits = op.value_width <= keys.width if state.latent else op.value_width == values.width
    require(fits, f"values of {op.value_width} values, the state has {values}")
    require(not op.q.overlaps(op.out), "out overlaps q")
    require(op.scale > 0 and math.isfinite(op.scale), f"scale {op.scale}")
    require(op.softcap is None or op.softcap > 0, f"softcap {op.softcap}")
    require(op.window is None or op.window >= 1, f"window {op.window}")
    require(op.chunk is None or op.chunk >= 1, f"chunk {op.chunk}")
    if isinstance(state.reach, Window):
        require(op.window is not None and op.window <= state.reach.size, f"window {op.window}, the state keeps {state.reach}")
    if isinstance(state.reach, Chunk):
        require(op.chunk is not None and state.reach.size % op.chunk == 0, f"chunk {op.chunk}, the state keeps {state.reach}")
    if op.sinks is not None:
        c.weight(op.sinks, op.heads)
    if op.chosen is not None:
        require(op.chosen in c.selected, f"{ops.show(op.chosen)} does not hold what SelectKeys chose")
        plain = (op.window, op.chunk, op.softcap, op.sinks) == (None,) * 4
        require(state.latent and plain, "of chosen positions only plain latent attention is known")
        require(not op.out.overlaps(op.chosen), "out overlaps chosen")
    c.read.add(op.state)
