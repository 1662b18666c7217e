"""Attention: kernels for few tokens, with and without splits of the keys, and for many tokens of one slot."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from lacewing.backends.webgpu.device.device import Slice, Variant
from lacewing.backends.webgpu.lowering.arena import Place
from lacewing.backends.webgpu.lowering.compiler import RULES, Compiler
from lacewing.backends.webgpu.lowering.dispatches import Grid, Run
from lacewing.backends.webgpu.state.layout import CHUNK, Stored, stored
from lacewing.backends.webgpu.weights.layouts import GROUP
from lacewing.errors import UnsupportedModelError
from lacewing.program import ops

THREADS = 256
ALONE = 256  # so many keys are seen by one workgroup, more are split
SPLIT_LEAST, SPLIT_MOST = 64, 64  # keys of a split, splits of a token
PARTS_BYTES = 2**26  # of what splits leave; more tokens than fit are not split
PREFILL_TOKENS = 16  # tokens of one slot from which on whole tiles of them are taken
_SUMS = 2**9  # vec4 of workgroup memory for sums of values, at least
_QUERIES = 9 * 2**10  # bytes of workgroup memory for queries
_SHARES = 2**10  # scores in workgroup memory


@dataclass(frozen=True)
class Before:
    """What `attention_decode_heads` does itself for one token, not the kernel `heads`: `steps` of queries and keys, and the store.

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
    def of(kv: Stored, heads: int, variant: Variant, keys: int = 0) -> Decode:
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


@dataclass(frozen=True)
class Prefill:
    """Sizes of `attention_prefill`: tokens and keys of a tile, rows and columns (of four values) of a thread."""

    across: int
    own: int
    queries: int
    keys: int
    columns: int
    parts: int
    area: int
    slice: int
    shuffles: bool

    @staticmethod
    def of(kv: Stored, variant: Variant, memory: int) -> Prefill:
        """`memory`: bytes that a workgroup may have."""
        shuffles = variant.subgroups and variant.lanes >= 8
        across = min(16, variant.lanes) if shuffles else 16
        columns = -(-2 * kv.value_chunks // across)
        own = 4 if columns <= 4 else 2
        queries, keys = 8 * own, 4 * across
        parts = 4 if memory >= 2**15 else 2  # chunks of queries and keys in workgroup memory
        area = max((queries + keys) * 2 * parts, 4 * 2 * kv.value_chunks, 8 * across)
        slice = 1 << (min(keys, 16, area // (2 * kv.value_chunks)).bit_length() - 1)
        return Prefill(across, own, queries, keys, columns, parts, area, slice, shuffles)


def most_splits(keys: int) -> int:
    """Splits of the token that has the most of them, among tokens that see up to `keys`; see `attention_range.wgsl`."""
    most, size = 1, ALONE
    while size < keys:
        size *= 2  # those that see more than half of it have splits of one length
        most = max(most, -(-min(size, keys) // max(SPLIT_LEAST, size // SPLIT_MOST)))
    return most


def can_prepare(compiler: Compiler, op: ops.Attention) -> bool:
    """Whether `attention_decode_heads` can do what `Before` says: one workgroup takes all the heads of a key."""
    kv = stored(compiler.program, compiler.limits, op.layer)
    block = Decode.of(kv, op.heads, compiler.variant, 1).block
    return compiler.variant.subgroups and block == op.heads // kv.key_heads and not kv.values_in_keys


@RULES.rule(ops.Attention)
def attention(compiler: Compiler, op: ops.Attention) -> None:
    lower_attention(compiler, op, None)


def lower_attention(compiler: Compiler, op: ops.Attention, before: Before | None) -> None:
    kv = stored(compiler.program, compiler.limits, op.layer)
    if kv.key_width > 8 * THREADS or kv.value_width > 4 * THREADS:
        widths = f"keys of {kv.key_width} values and values of {kv.value_width}"
        raise UnsupportedModelError(f"attention heads with {widths} are too wide for the GPU; use --backend cpu")
    coded = compiler.variant.dot and kv.value_width % GROUP == 0 and op.out.start % GROUP == 0
    constants = {
        "kv": kv, "q": compiler.at(op.q), "out": compiler.at(op.out), "heads": op.heads, "scale": op.scale, "window": op.window,
        "softcap": op.softcap, "span": op.chunk, "sinks": op.sinks is not None, "threads": THREADS,
        "codes": compiler.arena.codes(op.out) if coded else None, "alone": ALONE, "split_least": SPLIT_LEAST,
        "split_most": SPLIT_MOST, "before": None,
    }  # fmt: skip
    _decode(compiler, op, kv, constants, before)
    if compiler.limits.chunk >= PREFILL_TOKENS:
        _prefill(compiler, op, kv, constants)
    compiler.written(op.out)
    if coded:
        compiler.mark_coded(op.out)


def _is_prefill(run: Run) -> bool:
    return run.contiguous and run.tokens >= PREFILL_TOKENS


def _decode(compiler: Compiler, op: ops.Attention, kv: Stored, common: dict[str, Any], before: Before | None) -> None:
    """The kernels for few tokens: of one token with what stands before, else without; with and without splits."""
    sinks = [compiler.vector(op.sinks)] if op.sinks else []
    store = compiler.keys_values[op.layer]
    split_bytes = 4 * op.heads * SPLIT_MOST * (CHUNK * kv.value_chunks + 4)
    most_tokens = min(compiler.limits.chunk, max(1, PARTS_BYTES // split_bytes))

    def splits(run: Run) -> int:
        """1: the keys are not split."""
        keys = min(run.kv_len, kv.context, op.window or run.kv_len, op.chunk or run.kv_len)
        return most_splits(keys) if run.tokens <= most_tokens else 1

    parts = None
    if most_splits(min(kv.context, op.window or kv.context, op.chunk or kv.context)) > 1:
        parts = compiler.scratch("sums of attention", most_tokens * split_bytes)
    for prepared in (before, None) if before is not None else (None,):
        sizes = Decode.of(kv, op.heads, compiler.variant, 1 if prepared else 0)
        blocks, one, least = op.heads // sizes.block, prepared is not None, 2 if before is not None and prepared is None else 1
        more = list(prepared.bindings) if prepared is not None else []
        constants = {
            **common,
            **sizes.__dict__,
            "before": prepared,
            "rows": THREADS // sizes.row_lanes,
            "fold": 2 ** len(sizes.folds),
        }

        def grid(run: Run, split: bool, blocks: int = blocks, one: bool = one, least: int = least) -> Grid | None:
            if _is_prefill(run) or run.tokens < least or (one and run.tokens > 1) or split != (splits(run) > 1):
                return None
            return blocks, splits(run), run.tokens

        heads = "_heads" if one else ""
        compiler.dispatch(f"attention_decode{heads}", constants, [store, *sinks, *more], partial(grid, split=False))
        if parts is not None:
            compiler.dispatch(f"attention_decode_split{heads}", constants, [store, parts, *more], partial(grid, split=True))
    if parts is not None:
        strands = max(1, THREADS // (2 * kv.value_chunks))

        def merged(run: Run) -> Grid | None:
            return (op.heads, run.tokens, 1) if splits(run) > 1 and not _is_prefill(run) else None

        compiler.dispatch("attention_merge", {**common, "strands": strands}, [parts, *sinks], merged)


def _prefill(compiler: Compiler, op: ops.Attention, kv: Stored, constants: dict[str, Any]) -> None:
    """The kernel for many tokens of a slot, and the bytes of what it gives."""
    tile = Prefill.of(kv, compiler.variant, int(compiler.device.limits["max-compute-workgroup-storage-size"]))
    q, out = compiler.at(op.q), compiler.at(op.out)
    aligned = q.base % 4 == out.base % 4 == kv.key_width % 8 == kv.value_width % 4 == 0
    sinks = [compiler.vector(op.sinks)] if op.sinks else []

    def grid(run: Run) -> tuple[int, int, int] | None:
        return (-(-run.tokens // tile.queries), op.heads, 1) if _is_prefill(run) else None

    constants = {**constants, **tile.__dict__, "aligned": aligned}
    compiler.dispatch("attention_prefill", constants, [compiler.keys_values[op.layer], *sinks], grid)
    if constants["codes"] is not None:
        groups = op.out.width // GROUP
        quantise = {"x": out, "codes": constants["codes"], "groups": groups}
        compiler.dispatch("quantise", quantise, [], lambda run: (-(-groups // 64), run.tokens, 1) if _is_prefill(run) else None)
