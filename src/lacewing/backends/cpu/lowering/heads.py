"""Rules for attention and for what happens to each head before it: norm, rotation and storing are collected into one pass."""

from __future__ import annotations

from lacewing.backends.cpu.arguments import ATTENTION, HEADS, SCRATCH_BYTES, SELECT
from lacewing.backends.cpu.lowering.context import RULES, Argument, HeadJob, LoweredOp, Lowering, float_argument
from lacewing.errors import UnsupportedModelError
from lacewing.program import ops
from lacewing.program.ops import Hadamard, Norm, Op, Rope, WriteKeysValues
from lacewing.program.states import PAGE

COLLECTED = (Norm, Rope, Hadamard, WriteKeysValues)  # all others need what is collected; a norm that is not says so itself
MAX_QUERIES = 32  # kernels/attention/attention.py
MAX_HEAD_WIDTHS = 1800  # of key and value together: (MAX_QUERIES * (widths + 128 + 17)) float32 fit half of SCRATCH_BYTES
MAX_LATENT_VALUES = 512  # a page of them as float32 fits the other half
MAX_INDEX_HEADS = 512  # their scores of a page fit half of SCRATCH_BYTES
SCORE_ROWS = 16  # of tokens that are scored together at least, so that threads can share the positions of few tokens


def takes_norm(low: Lowering, op: Norm, rest: tuple[Op, ...]) -> bool:
    """Whether a norm belongs to heads that are rotated or stored next; if so it is kept."""
    if op.x != op.out or op.x in low.heads:
        return False
    for later in rest:
        heads = 0
        if isinstance(later, Rope) and later.x == op.x:
            heads = later.heads
        elif isinstance(later, WriteKeysValues) and op.x in (later.k, later.v):
            heads = low.store.paged(later.state).heads
        if heads:
            if heads != op.heads or (op.weight and low.program.weights[op.weight][0] > op.x.width // op.heads):
                return False
            low.heads[op.x] = HeadJob(op.x, op.heads, norm=op)
            return True
        if not isinstance(later, COLLECTED):
            return False
    return False


@RULES.rule(Rope)
def lower_rope(low: Lowering, op: Rope, rest: tuple[Op, ...]) -> None:
    job = _job(low, op)
    if job.rope is not None or job.hadamard is not None:
        flush(low)
        job = _job(low, op)
    job.rope = op


@RULES.rule(Hadamard)
def lower_hadamard(low: Lowering, op: Hadamard, rest: tuple[Op, ...]) -> None:
    job = _job(low, op)
    if job.hadamard is not None:
        flush(low)
        job = _job(low, op)
    job.hadamard = op


def _job(low: Lowering, op: Rope | Hadamard) -> HeadJob:
    """Of the heads of x, which are not stored yet."""
    job = low.heads.get(op.x)
    if job is not None and (job.pages is not None or job.heads != op.heads):
        flush(low)
    return low.heads.setdefault(op.x, HeadJob(op.x, op.heads))


@RULES.rule(WriteKeysValues)
def lower_write(low: Lowering, op: WriteKeysValues, rest: tuple[Op, ...]) -> None:
    pages = low.store.paged(op.state)
    stored = ((op.k, "keys", pages.heads), (op.v, "values", pages.heads), (op.index, "index", 1))
    for view, _, heads in stored:  # what is collected of heads that were counted differently, or are stored elsewhere, goes first
        if view in low.heads and (low.heads[view].heads != heads or low.heads[view].pages is not None):
            flush(low)
    for view, part, heads in stored:
        if view is not None:
            job = low.heads.setdefault(view, HeadJob(view, heads))
            job.pages, job.parts = pages, (*job.parts, part)


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
        f"attention.heads.heads_{job.pages.dtype if job.pages else 'f32'}", HEADS, x=low.at(job.view), stride=low.stride(job.view),
        count=job.heads, width=job.view.width // job.heads,
    )  # fmt: skip
    if job.pages is not None:
        made.set(**job.pages.arguments(job.parts))
    if norm is not None:
        made.set(norm=1, **norm_arguments(low, norm))
    if job.hadamard is not None:
        made.set(hadamard=job.hadamard.size)
    if rope is not None:
        made.set(start=rope.start, angles=low.angles(rope.rope), pairs=len(rope.rope.frequencies), adjacent=int(rope.rope.adjacent))
    return made


def norm_arguments(low: Lowering, op: Norm | ops.AddNorm) -> dict[str, Argument]:
    """What the kernels with a norm in them know of it."""
    return {
        "weight": low.vector(op.weight, op.weight_offset) if op.weight else 0,
        "bias": low.vector(op.bias) if op.bias else 0,
        "centred": int(op.centred),
        "eps": float_argument(op.eps),
    }


@RULES.rule(ops.Attention)
def lower_attention(low: Lowering, op: ops.Attention, rest: tuple[Op, ...]) -> None:
    pages, key_width, value_width = low.store.paged(op.state), op.q.width // op.heads, op.value_width
    if key_width + value_width > MAX_HEAD_WIDTHS or (pages.latent and value_width > MAX_LATENT_VALUES):
        most = f"{MAX_HEAD_WIDTHS // 2} values, latent ones up to {MAX_LATENT_VALUES}"
        raise UnsupportedModelError(f"the CPU backend takes heads of up to {most}, not {key_width} and {value_width}")
    if (
        op.chosen is not None
        and 4 * (MAX_QUERIES * (key_width + value_width + 145) + PAGE * value_width + 16 * key_width) > SCRATCH_BYTES
    ):
        raise UnsupportedModelError(f"the CPU backend gathers no keys of {key_width} values with values of {value_width}")
    group = op.heads // op.key_heads
    group = max(d for d in range(1, min(group, MAX_QUERIES) + 1) if group % d == 0)
    kernel = "attention.attention.attention" if op.chosen is None else "attention.chosen.attention"
    made = LoweredOp(
        f"{kernel}_{pages.dtype}", ATTENTION, q=low.at(op.q), q_stride=low.stride(op.q), out=low.at(op.out),
        out_stride=low.stride(op.out), heads=op.heads, key_heads=op.key_heads, key_width=key_width, value_width=value_width,
        **pages.arguments(("keys", "values")), scale=float_argument(op.scale), 
        softcap=float_argument(op.softcap or 0.0), window=op.window or 2**30, group=group, chunk=op.chunk or 2**30,
        sinks=low.vector(op.sinks) if op.sinks else 0,
    )  # fmt: skip
    if op.chosen is not None:
        made.set(chosen=low.at(op.chosen), chosen_stride=low.stride(op.chosen), most=op.chosen.width)
    low.emit(made, op.out)
    low.may_quantise(made, op.out, value_width)


@RULES.rule(ops.SelectKeys)
def lower_select_keys(low: Lowering, op: ops.SelectKeys, rest: tuple[Op, ...]) -> None:
    """First the scores of few tokens, positions shared by the threads; then the choice, for many tokens with the scores."""
    if op.heads > MAX_INDEX_HEADS:
        raise UnsupportedModelError(f"the CPU backend takes an index of up to {MAX_INDEX_HEADS} heads, not {op.heads}")
    pages, rows = low.store.paged(op.state), score_rows(low.threads)
    arguments = {
        "q": low.at(op.q), "q_stride": low.stride(op.q), "weights": low.at(op.weights), "weights_stride": low.stride(op.weights),
        "chosen": low.at(op.chosen), "chosen_stride": low.stride(op.chosen), "heads": op.heads, "width": op.q.width // op.heads,
        "most": op.chosen.width, **pages.arguments(("index",)), "rows": rows, "row_bytes": score_row_bytes(low.limits.context),
        "scores": low.memory.area("index scores", rows * score_row_bytes(low.limits.context)),
    }  # fmt: skip
    for kernel in ("score", "select"):
        low.emit(LoweredOp(f"attention.selection.{kernel}_{pages.dtype}", SELECT, **arguments), op.chosen)


def score_rows(threads: int) -> int:
    """Each thread has a row of its own where there are many tokens."""
    return max(SCORE_ROWS, threads)


def score_row_bytes(context: int) -> int:
    """Of whole pages."""
    return -(-context // PAGE) * PAGE * 4
