"""Norms and rotations of heads, and the writing of the KV cache, in one launch: each alone costs more than its work."""

from __future__ import annotations

from dataclasses import dataclass

from lacewing.backends.cuda.arguments import NULL, STEP, Argument, Joined, Pointer, Store, Struct, blocks, pages
from lacewing.backends.cuda.lowering.compiler import Compiler
from lacewing.backends.cuda.lowering.launches import Grid
from lacewing.backends.gpu.turns import fixed_turns
from lacewing.program import ops
from lacewing.program.ops import View

WARPS = 4  # of a block, which have a head each
WIDEST = 1024  # values of a head, as `heads.cu` has room for
BEFORE, BEHIND = 1, 2  # a norm, as seen from the rotation
KEYS, VALUES = 1, 2


@dataclass
class Chain:
    """Heads of a view, and what happens to each."""

    view: View
    heads: int
    norm: ops.Norm | None = None
    rope: ops.Rope | None = None
    normed: int = 0
    store: int = 0

    def take(self, op: ops.Norm | ops.Rope) -> bool:
        """Whether the op can be the next step."""
        if op.heads != self.heads:
            return False
        if isinstance(op, ops.Rope):
            taken, self.rope = self.rope is None, op
        else:
            taken, self.norm = self.norm is None and op.out == op.x and not op.centred and op.bias is None, op
            self.normed = BEFORE if self.rope is None else BEHIND
        return taken

    def packed(self, compiler: Compiler) -> list[Argument]:
        """As `heads.cu` takes it, with the weights of its norm and the table of its rotation."""
        rope, norm = self.rope, self.norm
        turns = NULL if rope is None else compiler.constant(fixed_turns(rope.rope.frequencies))
        numbers: tuple[int | float, ...] = (
            self.heads, self.view.width // self.heads, self.normed, 0 if rope is None else len(rope.rope.frequencies),
            0 if rope is None else rope.start, int(rope is not None and rope.rope.adjacent), self.store, 0,
            0.0 if norm is None else float(norm.eps), 0.0 if norm is None else float(norm.weight_offset),
            1.0 if rope is None else float(rope.rope.magnitude), 0.0,
        )  # fmt: skip
        weight = NULL if norm is None else compiler.vector(norm.weight)
        return [Joined((compiler.at(self.view), Struct(numbers))), weight, turns]


def lower_heads(compiler: Compiler) -> bool:
    """Does the ops from the compiler's index on up to the next `WriteKeysValues` in one launch.

    False, and nothing is done: they are other ones.
    """
    found = _collected(compiler)
    if found is None:
        return False
    write, steps, end = found
    layout = compiler.page_layout(write.state)
    if write.v is None or write.index is not None or layout.values is None:
        return False
    chains = {write.k: Chain(write.k, layout.key_heads, store=KEYS), write.v: Chain(write.v, layout.key_heads, store=VALUES)}
    for op in steps:
        if op.x not in chains and len(chains) == 2 and not any(op.x.overlaps(view) for view in chains):
            chains[op.x] = Chain(op.x, op.heads)
        if op.x not in chains or not chains[op.x].take(op) or _of_each(compiler, op):
            return False
    k, v, *others = chains.values()
    q = others[0] if others else Chain(write.k, 0)
    if v.rope is not None or any(each.heads and each.view.width // each.heads > WIDEST for each in (q, k, v)):
        return False
    if not q.heads:  # nothing of it is read
        q_parts: list[Argument] = [Joined((compiler.at(write.k), Struct((0,) * 8 + (0.0,) * 4))), NULL, NULL]
    else:
        q_parts = q.packed(compiler)
    parts = [q_parts, k.packed(compiler), v.packed(compiler)]
    weights: list[Pointer] = [part[1] for part in parts]
    arguments = [STEP, *(part[0] for part in parts), *weights, parts[0][2], parts[1][2], Store(write.state), pages(layout)]
    across = blocks(q.heads + k.heads + v.heads, WARPS)
    compiler.launch("heads", {"KV": layout.dtype}, arguments, lambda run: Grid(across, run.tokens))
    compiler.done.update(range(compiler.index, end + 1))
    return True


def _collected(compiler: Compiler) -> tuple[ops.WriteKeysValues, list[ops.Norm | ops.Rope], int] | None:
    """The write, the steps before it, and the index of the write."""
    steps: list[ops.Norm | ops.Rope] = []
    for index in range(compiler.index, len(compiler.program.ops)):
        op = compiler.program.ops[index]
        if isinstance(op, ops.WriteKeysValues):
            return op, steps, index
        if not isinstance(op, ops.Norm | ops.Rope) or index in compiler.done:
            return None
        steps.append(op)
    return None


def _of_each(compiler: Compiler, op: ops.Norm | ops.Rope) -> bool:
    """Whether it is a norm whose heads have weights of their own."""
    if not isinstance(op, ops.Norm) or op.weight is None:
        return False
    return compiler.program.weights[op.weight] != (op.x.width // op.heads,)
