"""What the buffers of a step take, told before it is compiled."""

from __future__ import annotations

from collections.abc import Iterator

from lacewing.backends.batch import StepLimits
from lacewing.backends.gpu.arena import Arena
from lacewing.backends.gpu.inputs import Inputs
from lacewing.backends.gpu.pages import layout_of
from lacewing.backends.webgpu.device.variant import Units
from lacewing.backends.webgpu.lowering import forms
from lacewing.backends.webgpu.lowering.attention import Splits
from lacewing.backends.webgpu.lowering.compiler import logit_rows
from lacewing.backends.webgpu.lowering.forms import gemv_tokens
from lacewing.backends.webgpu.lowering.selection import score_bytes
from lacewing.backends.webgpu.lowering.transfer import transfer_bytes
from lacewing.backends.webgpu.lowering.unit_tiles import divides, split_bytes
from lacewing.backends.webgpu.step.argmax import argmax_bytes
from lacewing.backends.webgpu.step.draw import draw_bytes, most_rows
from lacewing.backends.webgpu.step.top_k import top_k_bytes
from lacewing.program.ops import Attention, ExpertLinear, Linear, Logits
from lacewing.program.program import Program

LIST_WORDS, LISTS = 4, 3  # of sorted pairs: for each pair at most, and of how many sizes of tiles


def buffer_bytes(program: Program, limits: StepLimits, units: Units | None = None) -> int:
    """Activations with their q8 forms (and float16 ones for matrix units), logits and their way to the host, the choice, sums of
    attention and of products, scores of an index, what is transferred, inputs."""
    rows, vocabulary = logit_rows(program, limits), program.vocab_size
    total = 2 * 4 * rows * vocabulary + argmax_bytes(vocabulary, rows) + top_k_bytes(vocabulary, rows)
    total += draw_bytes(vocabulary, most_rows(rows, limits.rows))
    total += 2 * transfer_bytes(program, limits) + 4 * Inputs.of(program, limits).words
    total += sum({_splits(program, limits, op).nbytes for op in program.ops if isinstance(op, Attention)})
    if units is not None and any(divides(units, *shape, limits.chunk) for shape in _products(program)):
        total += split_bytes(units)
    return total + score_bytes(program, limits) + activation_bytes(program, limits, units is not None)


def _products(program: Program) -> Iterator[tuple[int, int]]:
    """Rows and columns of matrices; those that are joined have more rows, and are divided less."""
    for op in program.ops:
        for name in op.weights if isinstance(op, Linear) else (op.weight,) if isinstance(op, Logits) else ():
            rows, columns = program.weights[name]
            yield rows, columns


def _before_units(program: Program, op: Linear | Logits | ExpertLinear) -> int:
    """Tokens up to which no product on units takes its input."""
    return gemv_tokens(program.weights[op.weights[0]][0], op.ids.width) if isinstance(op, ExpertLinear) else forms.SKINNY_ABOVE


def _splits(program: Program, limits: StepLimits, op: Attention) -> Splits:
    return Splits.of(limits, op, layout_of(program, op.state, 0, 0, op.value_width))


def activation_bytes(program: Program, limits: StepLimits, units: bool) -> int:
    """Of the arena, at most; `units`: with the float16 forms for matrix units."""
    arena = Arena(limits.chunk, 2**62)
    for op in program.ops:
        arena.add(view.buffer for view in op.views)
    for view in {view.buffer.name: view.buffer.view() for op in program.ops for view in op.views}.values():
        arena.quantised(view)
    for op in program.ops:
        if units and isinstance(op, (Linear, Logits, ExpertLinear)) and limits.chunk > _before_units(program, op):
            arena.halved(op.x)
    active = [op.ids.width for op in program.ops if isinstance(op, ExpertLinear)]
    experts = [program.weights[op.weights[0]][0] for op in program.ops if isinstance(op, ExpertLinear)]
    pairs = limits.chunk * max(active, default=0)
    return 4 * (arena.words + LISTS * LIST_WORDS * (pairs + max(experts, default=0)))
