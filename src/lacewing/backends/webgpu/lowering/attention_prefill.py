"""Attention of rows with many tokens in a run: on matrix units where there are any, else by threads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lacewing.backends.gpu.layouts import GROUP
from lacewing.backends.gpu.pages import PageLayout
from lacewing.backends.gpu.run import Run
from lacewing.backends.webgpu.device.variant import Variant
from lacewing.backends.webgpu.lowering.compiler import Compiler
from lacewing.backends.webgpu.lowering.dispatches import Binding, Grid
from lacewing.backends.webgpu.lowering.forms import UNIT_TOKENS, forms_of
from lacewing.program import ops

_HELD_WIDTH = 128  # of heads up to which registers hold queries beside sums of values
_LOG2E = math.log2(math.e)


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
    def of(kv: PageLayout, variant: Variant, memory: int) -> Prefill:
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


@dataclass(frozen=True)
class UnitPrefill:
    """Sizes of `attention_units`: subgroups of a workgroup, of 16 tokens each; keys of a tile; numbers from one row of keys or
    values to the next. `held`: queries are in registers, not in workgroup memory."""

    down: int
    keys: int
    held: bool
    pitch: int

    @property
    def queries(self) -> int:
        return 16 * self.down

    @property
    def share_pitch(self) -> int:
        return self.keys + 8

    @property
    def sum_pitch(self) -> int:
        return self.keys + 4

    @property
    def shares(self) -> int:
        """Where they begin, behind queries and keys or values."""
        return self.pitch * (max(self.queries, self.keys) if self.held else self.queries + self.keys)

    @property
    def nbytes(self) -> int:
        """Of workgroup memory: queries, keys or values, and shares; scores; a factor of each token, and four words."""
        return 2 * (self.shares + self.queries * self.share_pitch) + 4 * self.queries * (self.sum_pitch + 1) + 16

    @staticmethod
    def of(kv: PageLayout, variant: Variant, memory: int) -> UnitPrefill | None:
        """None: there are no units of subgroups of 32, the pages are not float16, or the heads do not fit. `memory`: bytes."""
        fits = kv.dtype == "f16" and kv.key_width % 16 == 0 and kv.value_width % 16 == 0
        if variant.units is None or variant.units.lanes != 32 or not fits:
            return None
        width = max(kv.key_width, kv.value_width)
        shapes = ((4, 64, True), (2, 64, True)) if width <= _HELD_WIDTH else ((4, 32, False), (2, 32, False))
        made = [UnitPrefill(*shape, width + 8) for shape in shapes]
        return next((each for each in made if each.nbytes <= memory), None)


def is_sparse(op: ops.Attention, run: Run) -> bool:
    """Whether some token of a run may see more positions than an index chooses."""
    return op.chosen is not None and run.reach > op.chosen.width


def lower_prefill(compiler: Compiler, op: ops.Attention, kv: PageLayout, constants: dict[str, Any]) -> None:
    """The kernel for rows with many tokens in the run, and the bytes of what it gives."""
    memory = int(compiler.device.limits["max-compute-workgroup-storage-size"])
    tile, units = Prefill.of(kv, compiler.variant, memory), UnitPrefill.of(kv, compiler.variant, memory)
    q, out = compiler.at(op.q), compiler.at(op.out)
    aligned = q.base % 4 == out.base % 4 == kv.key_width % 8 == kv.value_width % 4 == 0
    sinks = [compiler.vector(op.sinks)] if op.sinks else []

    if not aligned or compiler.limits.chunk <= UNIT_TOKENS:
        units = None

    def of_units(run: Run) -> bool:
        return units is not None and run.tokens > UNIT_TOKENS

    def tiles(run: Run, queries: int) -> Grid | None:
        if not run.prefill or is_sparse(op, run):
            return None
        return sum(-(-tokens // queries) for tokens in run.prefill), op.heads, 1

    def grid(run: Run) -> Grid | None:
        return tiles(run, tile.queries)

    bindings: list[Binding] = [compiler.states.buffers[op.state], *sinks]
    if units is not None:
        sizes = {
            **constants, **units.__dict__, "queries": units.queries, "share_pitch": units.share_pitch, "sum_pitch": units.sum_pitch,
            "shares": units.shares, "log2e": _LOG2E,
        }  # fmt: skip
        queries = units.queries
        compiler.dispatch("attention_units", sizes, bindings, lambda run: tiles(run, queries) if of_units(run) else None)
    constants = {**constants, **tile.__dict__, "aligned": aligned}
    compiler.dispatch("attention_prefill", constants, bindings, lambda run: None if of_units(run) else grid(run))
    if constants["q8"] is not None:
        groups, most = op.out.width // GROUP, forms_of(compiler, op.out, op).codes
        quantise = {"x": out, "q8": constants["q8"], "groups": groups}
        compiler.dispatch(
            "quantise", quantise, [], lambda run: (-(-groups // 64), run.tokens, 1) if run.tokens <= most and grid(run) else None
        )
