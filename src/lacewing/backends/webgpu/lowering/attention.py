"""Attention: kernels for tokens one by one, with and without splits of the keys, and for many tokens of a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lacewing.backends.batch import StepLimits
from lacewing.backends.gpu.arena import Place
from lacewing.backends.gpu.inputs import PREFILL_TOKENS
from lacewing.backends.gpu.layouts import GROUP
from lacewing.backends.gpu.pages import CHUNK, PageLayout
from lacewing.backends.gpu.run import Run
from lacewing.backends.webgpu.device.device import Slice
from lacewing.backends.webgpu.device.variant import Variant
from lacewing.backends.webgpu.lowering.attention_prefill import is_sparse, lower_prefill
from lacewing.backends.webgpu.lowering.compiler import RULES, Compiler
from lacewing.backends.webgpu.lowering.dispatches import Binding, Grid
from lacewing.errors import UnsupportedModelError
from lacewing.program import ops

THREADS = 256
ALONE = 256  # so many keys are seen by one workgroup, more are split
SPLIT_LEAST, SPLIT_MOST = 64, 64  # keys of a split, splits of a token
PARTS_BYTES = 2**26  # of what splits leave; more tokens than fit are done in several passes
_SUMS = 2**9  # vec4 of workgroup memory for sums of values, at least
_QUERIES = 9 * 2**10  # bytes of workgroup memory for queries
_SHARES = 2**10  # scores in workgroup memory


@dataclass(frozen=True)
class Before:
    """What `attention_decode_heads` does itself, not the kernel `heads`: `steps` of queries and keys, and the store.

    `bindings`: norm weights, then tables of rotations, so many of each.
    """

    k: Place
    v: Place
    steps: tuple[tuple[dict[str, Any] | None, dict[str, Any] | None], ...]
    bindings: tuple[Slice, ...]
    weights: int
    tables: int


@dataclass(frozen=True)
class Decode:
    """Sizes of `attention_decode`: heads of a workgroup, keys of a tile; threads that share a row of keys, rows at a time."""

    block: int
    tile: int
    row_lanes: int
    unroll: int
    strands: int
    folds: tuple[int, ...]
    together: int
    pool: int

    @staticmethod
    def of(kv: PageLayout, heads: int, variant: Variant, keys: int = 0) -> Decode:
        """`keys`: new ones that are prepared beside the queries."""
        group, row_bytes = heads // kv.key_heads, 4 * CHUNK * kv.key_chunks
        block = max(n for n in range(1, 9) if group % n == 0 and (n == 1 or n * row_bytes <= _QUERIES))
        tile = min(THREADS, _SHARES // block // 64 * 64)
        row_lanes = max(n for n in (1, 2, 4, 8) if kv.key_chunks % n == 0 and n <= (variant.lanes if variant.subgroups else 1))
        parts = kv.key_chunks // row_lanes
        unroll = min(4 if parts == 1 else 2 if parts <= 4 else 1, max(1, tile * row_lanes // THREADS))
        chunks = kv.value_chunks
        folding = variant.subgroups and chunks < variant.lanes and chunks & (chunks - 1) == 0
        folds = tuple(chunks << n for n in range((variant.lanes // chunks).bit_length() - 1)) if folding else ()
        strands = THREADS // chunks
        sums = 2 * chunks * (strands >> len(folds))  # vec4 of a head
        pool = max(2 * kv.key_chunks * (block + keys), sums, _SUMS)
        together = min(block, pool // sums)
        return Decode(block, tile, row_lanes, unroll, strands, folds, together, pool)


def most_splits(keys: int) -> int:
    """Splits of the token that has the most of them, among tokens that see up to `keys`; see `attention_range.wgsl`."""
    most, size = 1, ALONE
    while size < keys:
        size *= 2  # those that see more than half of it have splits of one length
        most = max(most, -(-min(size, keys) // max(SPLIT_LEAST, size // SPLIT_MOST)))
    return most


@dataclass(frozen=True)
class Splits:
    """How the keys of decoded tokens are divided: `most_tokens` at a time, whose splits leave `token_bytes` each."""

    reach: int  # keys that a token sees at most
    most_tokens: int
    token_bytes: int

    @staticmethod
    def of(limits: StepLimits, op: ops.Attention, kv: PageLayout) -> Splits:
        token_bytes = 4 * op.heads * SPLIT_MOST * (CHUNK * kv.value_chunks + 4)
        tokens = min(limits.chunk, (PREFILL_TOKENS - 1) * limits.rows)  # that are decoded in a run at most
        most = None if op.chosen is None else op.chosen.width
        reach = min(limits.context, op.window or limits.context, op.chunk or limits.context, most or limits.context)
        return Splits(reach, min(tokens, max(1, PARTS_BYTES // token_bytes)), token_bytes)

    @property
    def nbytes(self) -> int:
        """Of what is left at a time."""
        return self.most_tokens * self.token_bytes if most_splits(self.reach) > 1 else 0

    def count(self, run: Run) -> int:
        """1: no token sees so many keys that they are divided. Bits are the same either way."""
        return most_splits(min(run.kv_len, self.reach))

    def divides(self, run: Run) -> bool:
        """Whether the keys that an index chose are divided: only of so few tokens as one pass takes."""
        return run.tokens <= self.most_tokens and most_splits(min(run.reach, self.reach)) > 1

    def prepares(self, run: Run) -> bool:
        """Whether `attention_decode_heads` is used: no token of a run may need the key of another one, which is not there yet."""
        return run.single and (run.tokens <= self.most_tokens or self.count(run) == 1)


def can_prepare(compiler: Compiler, op: ops.Attention) -> bool:
    """Whether `attention_decode_heads` can do what `Before` says: one workgroup takes all the heads of a key."""
    kv = compiler.page_layout(op.state, op.value_width)
    block = Decode.of(kv, op.heads, compiler.variant, 1).block
    whole = block == op.heads // kv.key_heads and kv.values is not None and kv.dtype != "q8_0"
    return compiler.variant.subgroups and whole


def prepared_runs(compiler: Compiler, op: ops.Attention) -> Callable[[Run], bool]:
    """In which runs the attention does what stands before it, if it can."""
    return Splits.of(compiler.limits, op, compiler.page_layout(op.state, op.value_width)).prepares


@RULES.rule(ops.Attention)
def attention(compiler: Compiler, op: ops.Attention) -> None:
    lower_attention(compiler, op, None)


def lower_attention(compiler: Compiler, op: ops.Attention, before: Before | None) -> None:
    kv = compiler.page_layout(op.state, op.value_width)
    if kv.key_width > 8 * THREADS or kv.value_width > 4 * THREADS:
        widths = f"keys of {kv.key_width} values and values of {kv.value_width}"
        raise UnsupportedModelError(f"attention heads with {widths} are too wide for the GPU; use `backend='cpu'`")
    coded = compiler.variant.dot and kv.value_width % GROUP == 0 and op.out.start % GROUP == 0
    constants = {
        "kv": kv, "q": compiler.at(op.q), "out": compiler.at(op.out), "heads": op.heads, "scale": op.scale, "window": op.window,
        "softcap": op.softcap, "span": op.chunk, "sinks": op.sinks is not None, "threads": THREADS,
        "q8": compiler.arena.quantised(op.out) if coded else None, "alone": ALONE, "split_least": SPLIT_LEAST,
        "split_most": SPLIT_MOST, "before": None, "chosen": None, "most": 0,
    }  # fmt: skip
    splits = Splits.of(compiler.limits, op, kv)
    if op.chosen is not None:
        _chosen(compiler, op, kv, constants, splits)
    if before is not None:
        _decode(compiler, op, kv, constants, splits, before)
    _decode(compiler, op, kv, constants, splits, None, fused=before is not None)
    if compiler.limits.chunk >= PREFILL_TOKENS:
        lower_prefill(compiler, op, kv, constants)
    compiler.written(op.out)
    if coded:
        compiler.mark_quantised(op.out)


def _chosen(compiler: Compiler, op: ops.Attention, kv: PageLayout, common: dict[str, Any], splits: Splits) -> None:
    """The kernels of runs in which attention sees chosen positions only: all tokens one by one."""
    if op.chosen is None or compiler.limits.context <= op.chosen.width:
        return
    store, sizes = compiler.states.buffers[op.state], Decode.of(kv, op.heads, compiler.variant)
    blocks, begin = op.heads // sizes.block, compiler.constant(np.zeros(1, np.uint32))
    constants = {
        **common, **sizes.__dict__, "keys": THREADS // sizes.row_lanes, "fold": 2 ** len(sizes.folds),
        "chosen": compiler.at(op.chosen), "most": op.chosen.width,
    }  # fmt: skip

    def done(run: Run, divided: bool) -> bool:
        return is_sparse(op, run) and splits.divides(run) == divided

    compiler.dispatch("attention_decode", constants, [store], lambda run: (blocks, 1, run.tokens) if done(run, False) else None)
    if most_splits(splits.reach) == 1:
        return
    parts, count = compiler.scratch("sums of attention", splits.nbytes), most_splits(splits.reach)
    compiler.dispatch(
        "attention_decode_split", constants, [store, parts, begin],
        lambda run: (blocks, count, run.tokens) if done(run, True) else None,
    )  # fmt: skip
    constants["strands"] = max(1, THREADS // (2 * kv.value_chunks))
    compiler.dispatch(
        "attention_merge", constants, [parts, begin], lambda run: (op.heads, run.tokens, 1) if done(run, True) else None
    )


def _decode(
    compiler: Compiler, op: ops.Attention, kv: PageLayout, common: dict[str, Any], splits: Splits, before: Before | None,
    fused: bool = False,
) -> None:  # fmt: skip
    """The kernels of tokens one by one, with what stands before where given; with and without splits of the keys.

    `fused`: some runs are done by the kernels that prepare heads, and left out here.
    """
    sinks = [compiler.vector(op.sinks)] if op.sinks else []
    store: Binding = compiler.states.buffers[op.state]
    sizes = Decode.of(kv, op.heads, compiler.variant, 1 if before else 0)
    blocks, heads = op.heads // sizes.block, "_heads" if before is not None else ""
    more = list(before.bindings) if before is not None else []
    constants = {**common, **sizes.__dict__, "before": before, "keys": THREADS // sizes.row_lanes, "fold": 2 ** len(sizes.folds)}

    def runs(run: Run) -> bool:
        if is_sparse(op, run):
            return False
        return splits.prepares(run) if before is not None else not (fused and splits.prepares(run))

    def direct(run: Run) -> Grid | None:
        return (blocks, 1, run.decode) if run.decode and runs(run) and splits.count(run) == 1 else None

    compiler.dispatch(f"attention_decode{heads}", constants, [store, *sinks, *more], direct)
    if most_splits(splits.reach) == 1:
        return
    parts = compiler.scratch("sums of attention", splits.nbytes)
    most = (
        1
        if before is not None
        else -(-min(compiler.limits.chunk, (PREFILL_TOKENS - 1) * compiler.limits.rows) // splits.most_tokens)
    )
    for first in range(0, most * splits.most_tokens, splits.most_tokens):

        def tokens(run: Run, first: int = first) -> int:
            """Of this pass."""
            return max(0, min(run.decode - first, splits.most_tokens)) if runs(run) and splits.count(run) > 1 else 0

        def split(run: Run, tokens: Callable[[Run], int] = tokens) -> Grid | None:
            return (blocks, splits.count(run), tokens(run)) if tokens(run) else None

        def merged(run: Run, tokens: Callable[[Run], int] = tokens) -> Grid | None:
            return (op.heads, tokens(run), 1) if tokens(run) else None

        begin = compiler.constant(np.array([first], np.uint32))
        passing = [] if before is not None else [begin]
        compiler.dispatch(f"attention_decode_split{heads}", constants, [store, parts, *passing, *more], split)
        strands = max(1, THREADS // (2 * kv.value_chunks))
        compiler.dispatch("attention_merge", {**common, "strands": strands}, [parts, begin, *sinks], merged)
