"""Which eager weights are in tile order: those that only kernels read which can (gemm and experts `linear.py`, `embed.py`)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lacewing.backends.cpu.arguments import TILE_COLUMNS
from lacewing.backends.cpu.isa import host_isa
from lacewing.backends.cpu.quants import TILES
from lacewing.backends.weights import TensorSpec, TileOrder
from lacewing.program.ops import Embed, ExpertLinear, HeadLinear, Linear, Logits, Op
from lacewing.program.program import Program


def tile_orders(program: Program, weights: Mapping[str, TensorSpec]) -> dict[str, TileOrder]:
    """See `backends.base.PrefersTiles`."""
    wanted: set[str] = set()
    refused: set[str] = set()
    for op in program.ops:
        for name in op.weight_names:
            (wanted if _reads_tiles(op, name, weights[name]) else refused).add(name)
    return dict.fromkeys(sorted(wanted - refused), TileOrder(host_isa().lanes, TILE_COLUMNS))


def _reads_tiles(op: Op, name: str, weight: TensorSpec) -> bool:
    """Whether the op runs on tiles, whole ones: the last one of a weight whose rows do not divide so shares rows with another."""
    if weight.quant.name not in TILES or weight.scales is not None or len(weight.shape) < 2:
        return False
    rows = weight.shape[-2]
    if isinstance(op, ExpertLinear):
        if op.transposed or name not in op.weights:
            return False
        split = len(op.outs) // len(op.weights)
        if split > 1 and op.interleaved:
            return False
        rows //= split
    elif isinstance(op, HeadLinear):
        if op.transposed or op.x.width // op.heads % 32:
            return False
    elif isinstance(op, Linear):
        if name not in op.weights:
            return False
    elif not isinstance(op, (Embed, Logits)):
        return False
    return rows % host_isa().lanes == 0


_READ_ACROSS = ("F32", "F16", "BF16", "F8_E4M3")  # whose values can be read from any row


def copied_bytes(program: Program, weights: Mapping[str, TensorSpec]) -> int:
    """Of matrices of heads that are read across their rows, which blocks of a quant do not allow: a copy in float16 is kept. Such
    are the keys of latent attention in older GGUF files."""
    names = {op.weight for op in program.ops if isinstance(op, HeadLinear) and op.transposed}
    return sum(2 * math.prod(weights[name].shape) for name in names if weights[name].quant.name not in _READ_ACROSS)
