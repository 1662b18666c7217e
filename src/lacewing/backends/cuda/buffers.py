"""What the buffers of a step take, told before it is compiled."""

from __future__ import annotations

from lacewing.backends.batch import StepLimits
from lacewing.backends.cuda.lowering.attention import Splits
from lacewing.backends.cuda.lowering.compiler import logit_rows
from lacewing.backends.cuda.lowering.inputs import input_bytes
from lacewing.backends.cuda.lowering.products import split_sizes
from lacewing.backends.cuda.lowering.selection import score_bytes
from lacewing.backends.cuda.lowering.transfer import transfer_bytes
from lacewing.backends.cuda.step.choice import argmax_bytes, top_k_bytes
from lacewing.backends.gpu.arena import Arena
from lacewing.backends.gpu.draws import WORDS
from lacewing.backends.gpu.inputs import Inputs
from lacewing.program.ops import Attention
from lacewing.program.program import Program


def buffer_bytes(program: Program, limits: StepLimits, processors: int, halved: bool) -> int:
    """Activations in all forms, logits, the choice, sums of splits and attention, scores of an index, transfers, inputs.

    `halved`: on a card of HALVED.
    """
    rows, vocabulary = logit_rows(program, limits), program.vocab_size
    total = 4 * rows * vocabulary + argmax_bytes(vocabulary, rows) + top_k_bytes(vocabulary, rows) + 4 * WORDS * limits.rows
    total += transfer_bytes(program, limits) + 4 * Inputs.of(program, limits).words
    total += sum({Splits.of(limits, op).nbytes for op in program.ops if isinstance(op, Attention)})
    total += input_bytes(program, limits, halved) + sum(split_sizes(2 * processors))
    arena = Arena(limits.chunk, 2**62)
    for op in program.ops:
        arena.add(view.buffer for view in op.views)
    return total + score_bytes(program, limits) + 4 * arena.words
