"""Which kernels a quant runs on, and which weights are in tile order. A new quant: its unpacker or dequantiser in `kernels/`, and
one row here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from lacewing.backends.cpu.arguments import TILE_COLUMNS
from lacewing.backends.cpu.isa import host_isa
from lacewing.backends.weights import TensorSpec, TileOrder
from lacewing.errors import UnsupportedModelError
from lacewing.program.ops import Embed, ExpertLinear, HeadLinear, Linear, Logits, Op
from lacewing.program.program import Program
from lacewing.quants.base import Quant


@dataclass(frozen=True)
class TileKernels:
    """A quant that is unpacked to bytes and multiplied with byte activations.

    `shift`: the bytes are the true value + 2**shift; None: true bytes, with a minimum for each sub-block.
    `wide`: bytes above 63 occur, which instruction sets with saturating pair sums must treat apart. `gemv`: the kernel for
    one token of weights row after row, without a tile; instruction sets of 4 lanes do not use it. `tiled`: that for few tokens of
    weights in tile order, whose blocks are cut into `pieces` of so many bytes then; none: blocks stay whole.
    """

    unpack: str
    shift: int | None
    sub_block: int = 32
    wide: bool = False
    gemv: str = ""
    tiled: str = ""
    pieces: tuple[int, ...] = ()

    @property
    def unpack_tiled(self) -> str:
        """As `unpack`, for weights in tile order."""
        module, _, function = self.tiled.rpartition(".")
        return f"{module}.{function.replace('tiled_', 'unpack_')}" if module else self.unpack

    @property
    def dot(self) -> str:
        """The dot kernel's name."""
        if self.wide and host_isa().dot == "maddubs":
            return "gemm.dot.wide32"
        return f"gemm.{'amx' if host_isa().tiles else 'dot'}.{'min' if self.shift is None else 'offset'}{self.sub_block}"

    @property
    def sums_at(self) -> float:
        """Where the sums that the dot kernel reads lie in an activation row, as a share of its columns
        (kernels/quants/activations.py)."""
        if self.shift is None:
            return 1.125 if self.sub_block == 32 else 1.25
        return 1.5 if self.sub_block == 32 else 1.625

    @property
    def sum_bytes(self) -> int:
        """Bytes of sums for 32 columns."""
        return 4 * 32 // self.sub_block


TILES = {
    "Q4_0": TileKernels(
        "quants.unpack_32.unpack_q4_0", 3, gemv="gemv.gemv_32.gemv_q4_0", tiled="tiled.tiled_32.tiled_q4_0", pieces=(2, *4 * (4,))
    ),
    "Q4_1": TileKernels(
        "quants.unpack_32.unpack_q4_1", None, gemv="gemv.gemv_32.gemv_q4_1", tiled="tiled.tiled_32.tiled_q4_1", pieces=5 * (4,)
    ),
    "Q5_0": TileKernels(
        "quants.unpack_32.unpack_q5_0", 4, gemv="gemv.gemv_32.gemv_q5_0", tiled="tiled.tiled_32.tiled_q5_0", pieces=(2, *5 * (4,))
    ),
    "Q5_1": TileKernels(
        "quants.unpack_32.unpack_q5_1", None, gemv="gemv.gemv_32.gemv_q5_1", tiled="tiled.tiled_32.tiled_q5_1", pieces=6 * (4,)
    ),
    "Q8_0": TileKernels(
        "quants.unpack_32.unpack_q8_0",
        7,
        wide=True,
        gemv="gemv.gemv_32.gemv_q8_0",
        tiled="tiled.tiled_32.tiled_q8_0",
        pieces=(2, *8 * (4,)),
    ),
    "IQ4_NL": TileKernels("quants.unpack_table.unpack_iq4_nl", 7, wide=True),
    "IQ4_XS": TileKernels("quants.unpack_table.unpack_iq4_xs", 7, wide=True),
    "MXFP4": TileKernels("quants.unpack_table.unpack_mxfp4", 4),
    "Q2_K": TileKernels("quants.unpack_k.unpack_q2_k", None, sub_block=16),
    "Q3_K": TileKernels("quants.unpack_k.unpack_q3_k", 2, sub_block=16),
    "Q4_K": TileKernels(
        "quants.unpack_k.unpack_q4_k", None, gemv="gemv.gemv_k.gemv_q4_k", tiled="tiled.tiled_k.tiled_q4_k", pieces=36 * (4,)
    ),
    "Q5_K": TileKernels(
        "quants.unpack_k.unpack_q5_k", None, gemv="gemv.gemv_k.gemv_q5_k", tiled="tiled.tiled_k.tiled_q5_k", pieces=44 * (4,)
    ),
    "Q6_K": TileKernels(
        "quants.unpack_k.unpack_q6_k",
        5,
        sub_block=16,
        gemv="gemv.gemv_k.gemv_q6_k",
        tiled="tiled.tiled_k.tiled_q6_k",
        pieces=(*52 * (4,), 2),
    ),
}
FLOATS = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
SCALED_FLOATS = {"F8_E4M3": "f8", "F4_E2M1": "f4"}  # with a factor for each block of rows and columns: lowering/scaled.py
GENERIC = {
    "IQ1_S": "quants.dequantise_iq.dequantise_iq1_s",
    "IQ1_M": "quants.dequantise_iq.dequantise_iq1_m",
    "IQ2_XXS": "quants.dequantise_iq.dequantise_iq2_xxs",
    "IQ2_XS": "quants.dequantise_iq.dequantise_iq2_xs",
    "IQ2_S": "quants.dequantise_iq.dequantise_iq2_s",
    "IQ3_XXS": "quants.dequantise_iq.dequantise_iq3_xxs",
    "IQ3_S": "quants.dequantise_iq.dequantise_iq3_s",
    "TQ1_0": "quants.dequantise.dequantise_tq1_0",
    "TQ2_0": "quants.dequantise.dequantise_tq2_0",
    "Q1_0": "quants.dequantise.dequantise_q1_0",
    "Q2_0": "quants.dequantise.dequantise_q2_0",
    "NVFP4": "quants.dequantise.dequantise_nvfp4",
    "F64": "quants.dequantise.dequantise_f64",
    "I8": "quants.dequantise.dequantise_i8",
    "I16": "quants.dequantise.dequantise_i16",
    "I32": "quants.dequantise.dequantise_i32",
    "I64": "quants.dequantise.dequantise_i64",
}


def kernels_of(quant: Quant) -> TileKernels | str:
    """Tile kernels, or the name of a float kind, or that of a dequantiser kernel. Raises UnsupportedModelError."""
    for table in (TILES, FLOATS, SCALED_FLOATS, GENERIC):
        if quant.name in table:
            return table[quant.name]
    known = ", ".join([*TILES, *FLOATS, *SCALED_FLOATS, *GENERIC])
    raise UnsupportedModelError(f"the CPU backend has no kernel for {quant.name}; it has {known}")


def tile_orders(program: Program, weights: Mapping[str, TensorSpec]) -> dict[str, TileOrder]:
    """Eager weights to be in tile order: those that only kernels read which can (gemm and experts `linear.py`, `embed.py`)."""
    wanted: set[str] = set()
    refused: set[str] = set()
    for op in program.ops:
        for name in op.weight_names:
            (wanted if _reads_tiles(op, name, weights[name]) else refused).add(name)
    lanes = host_isa().lanes
    return {name: TileOrder(lanes, TILE_COLUMNS, TILES[weights[name].quant.name].pieces) for name in sorted(wanted - refused)}


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
