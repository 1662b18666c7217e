"""In which forms activations are read: as floats, as bytes by products of few tokens, as float16 by matrix units.

A kernel that makes activations makes the other forms too, for runs of as many tokens as read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lacewing.backends.gpu.conversion import stored_as
from lacewing.backends.gpu.layouts import LAYOUTS
from lacewing.backends.webgpu.device.variant import Units
from lacewing.backends.webgpu.lowering.compiler import Compiler
from lacewing.backends.webgpu.lowering.dispatches import WIDEST
from lacewing.program import ops
from lacewing.program.ops import View

UNIT_TOKENS = 64  # attention of more takes matrix units, where there are any
SKINNY_ABOVE = 8  # linear products and logits of more tokens take units, skinny tiles while they are few
GEMV_TOKENS = 8  # tokens, or rows of logits, up to which a product of floats is a GEMV for each; more are a GEMM
SHARED = 4  # pairs an expert, on average, from which tiles are faster
NARROW_ROWS = 512  # up to which linear products with F32 and BF16 stay floats, in small tiles: so many are routers, which decide


@dataclass
class Forms:
    """Of a view: runs of up to `floats` tokens read floats, of up to `codes` bytes, of more than `halves` float16; -1: none."""

    floats: int = 0
    codes: int = 0
    halves: int = -1

    @property
    def halves_alone(self) -> int:
        """In runs of more tokens than that float16 is all that is read; -1: it is not read at all."""
        return max(self.floats, self.codes, self.halves) if self.halves >= 0 else -1


def gemv_tokens(experts: int, active: int) -> int:
    """Up to so many tokens read their experts' rows by themselves."""
    return max(GEMV_TOKENS, SHARED * experts // active)


def forms_of(compiler: Compiler, view: View, op: object | None = None) -> Forms:
    """How the ops behind `op`, None: behind the current one, read a view, until something else stands there."""
    found, program, index = Forms(), compiler.program.ops, compiler.index
    if op is not None:
        index = next(number for number in range(index, len(program)) if program[number] is op)
    for later in program[index + 1 :]:
        if any(view.overlaps(read) for read in later.reads):
            _read(compiler, later, view, found)
        covered = (write for write in later.writes if write.buffer == view.buffer)
        if any(w.start <= view.start and view.start + view.width <= w.start + w.width for w in covered):
            break
    return found


def _read(compiler: Compiler, op: object, view: View, found: Forms) -> None:
    endless = compiler.limits.chunk
    if not isinstance(op, (ops.Linear, ops.Logits, ops.ExpertLinear)) or not op.x.overlaps(view):
        found.floats = endless
        return
    for name in (op.weight,) if isinstance(op, ops.Logits) else op.weights:
        above = takes_units(compiler, op, name)
        most = endless if above is None or isinstance(op, ops.Logits) else above  # rows of logits may be fewer than tokens
        if LAYOUTS[_stored(compiler, op, name)].floats or not compiler.variant.dot:
            found.floats = max(found.floats, most)
        else:
            found.codes = max(found.codes, most)
        if above is not None and op.x == view:
            found.halves = above if found.halves < 0 else min(found.halves, above)
        elif above is not None:
            found.floats = endless  # of which a part, or more, is made float16


def _stored(compiler: Compiler, op: ops.Linear | ops.Logits | ops.ExpertLinear, weight: str) -> str:
    return stored_as(compiler.weights[weight], isinstance(op, ops.ExpertLinear) and op.transposed)


def takes_units(compiler: Compiler, op: ops.Linear | ops.Logits | ops.ExpertLinear, weight: str) -> int | None:
    """Above how many tokens a product takes matrix units; None: it does not."""
    shape, above, part = compiler.weights[weight].shape, SKINNY_ABOVE, 0
    rows = shape[0] if isinstance(op, ops.Logits) else sum(out.width for out in op.outs)
    if isinstance(op, ops.ExpertLinear):
        active = op.ids.width
        above, rows, part = gemv_tokens(shape[0], active), rows // active, op.x.width // active if op.separate else 0
    elif is_narrow(_stored(compiler, op, weight), shape[0]):
        return None
    return None if units_for(compiler, _stored(compiler, op, weight), (weight,), rows, above, part) is None else above


def is_narrow(quant: str, rows: int) -> bool:
    return quant in ("F32", "BF16") and rows <= NARROW_ROWS


def units_for(compiler: Compiler, quant: str, weights: Sequence[str], rows: int, above: int, part: int = 0) -> Units | None:
    """The matrix units of a product of more than `above` tokens with weights in one matrix, stored as `quant`; None: it takes none.

    It does where float16 holds the weights, a grid has tiles for its `rows`, and the inputs of an active expert, `part` wide if
    each has its own, begin where a load of eight does and fill the last step.
    """
    units = compiler.variant.units
    if units is None or quant == "F32" or compiler.limits.chunk <= above:
        return None
    if part % units.depth or rows > units.rows * WIDEST:
        return None
    return units if all(compiler.halves_hold(name, quant) for name in weights) else None
