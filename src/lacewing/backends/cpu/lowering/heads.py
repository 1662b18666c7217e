"""Rules for attention and for what happens to each head before it: norm, rotation and storing are collected into one pass."""

from __future__ import annotations

from lacewing.backends.cpu.arguments import ATTENTION, HEADS
from lacewing.backends.cpu.lowering.context import RULES, HeadJob, LoweredOp, Lowering, float_argument
from lacewing.errors import UnsupportedModelError
from lacewing.program import ops
from lacewing.program.ops import Norm, Op, Rope, View, WriteKeysValues

COLLECTED = (Norm, Rope, WriteKeysValues)  # all others need what is collected; a norm that is not says so itself
MAX_QUERIES = 32  # kernels/attention/attention.py
MAX_HEAD_WIDTHS = 1800  # of key and value together: (MAX_QUERIES * (widths + 128 + 17)) float32 fit SCRATCH_BYTES


def takes_norm(low: Lowering, op: Norm, rest: tuple[Op, ...]) -> bool:
    """Whether a norm belongs to heads that are rotated next; if so it is kept."""
    if op.x != op.out or op.add is not None or op.x in low.heads:
        return False
    for later in rest:
        if isinstance(later, Rope) and later.x == op.x:
            if later.heads != op.heads:
                return False
            low.heads[op.x] = HeadJob(op.x, op.heads, norm=op)
            return True
        if not isinstance(later, COLLECTED):
            return False
    return False


@RULES.rule(Rope)
def lower_rope(low: Lowering, op: Rope, rest: tuple[Op, ...]) -> None:
    job = low.heads.get(op.x)
    if job is not None and (job.rope is not None or job.keys or job.heads != op.heads):
        flush(low)
        job = None
    if job is None:
        job = low.heads[op.x] = HeadJob(op.x, op.heads)
    job.rope = op


@RULES.rule(WriteKeysValues)
def lower_write(low: Lowering, op: WriteKeysValues, rest: tuple[Op, ...]) -> None:
    heads = low.program.layers[op.layer].key_heads
    _collect(low, op.k, heads)
    if op.v is not None:
        _collect(low, op.v, heads)
    low.heads.setdefault(op.k, HeadJob(op.k, heads)).keys = int(low.keys[op.layer].ctypes.data)
    if op.v is not None:
        low.heads.setdefault(op.v, HeadJob(op.v, heads)).values = int(low.values[op.layer].ctypes.data)


def _collect(low: Lowering, view: View, heads: int) -> None:
    """What is collected of a view whose heads were counted differently goes first."""
    if view in low.heads and low.heads[view].heads != heads:
        flush(low)


def flush(low: Lowering) -> None:
    """Emit what is collected, all of it after one barrier."""
    jobs, low.heads = list(low.heads.values()), {}
    for index, job in enumerate(jobs):
        made = _lowered(low, job)
        made.barrier = index == 0
        low.emit(made, job.view)


def _lowered(low: Lowering, job: HeadJob) -> LoweredOp:
    norm, rope = job.norm, job.rope
    made = LoweredOp(
        f"attention.heads.heads_{low.kind}", HEADS, x=low.at(job.view), stride=low.stride(job.view), count=job.heads,
        width=job.view.width // job.heads, keys=job.keys, values=job.values,
    )  # fmt: skip
    if norm is not None:
        weight = low.vector(norm.weight, norm.weight_offset) if norm.weight else 0
        made.set(norm=1, weight=weight, eps=float_argument(norm.eps))
    if rope is not None:
        made.set(start=rope.start, angles=low.angles(rope.rope), pairs=len(rope.rope.frequencies), adjacent=int(rope.rope.adjacent))
    return made


@RULES.rule(ops.Attention)
def lower_attention(low: Lowering, op: ops.Attention, rest: tuple[Op, ...]) -> None:
    layer, low.layer = low.program.layers[op.layer], op.layer
    if layer.key_width + layer.value_width > MAX_HEAD_WIDTHS:
        raise UnsupportedModelError(f"the CPU backend takes heads of up to {MAX_HEAD_WIDTHS // 2} values, not {layer}")
    group = op.heads // op.key_heads
    group = max(d for d in range(1, min(group, MAX_QUERIES) + 1) if group % d == 0)
    made = LoweredOp(
        f"attention.attention.attention_{low.kind}", ATTENTION, q=low.at(op.q), q_stride=low.stride(op.q), out=low.at(op.out),
        out_stride=low.stride(op.out), heads=op.heads, key_heads=op.key_heads, key_width=layer.key_width,
        value_width=layer.value_width, keys=int(low.keys[op.layer].ctypes.data),
        values=0 if layer.values_in_keys else int(low.values[op.layer].ctypes.data), scale=float_argument(op.scale),
        softcap=float_argument(op.softcap or 0.0), window=op.window or 2**30, group=group, chunk=op.chunk or 2**30,
        sinks=low.vector(op.sinks) if op.sinks else 0,
    )  # fmt: skip
    low.emit(made, op.out)
    low.may_quantise(made, op.out, layer.value_width)
