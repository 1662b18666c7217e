"""Which kernels a quant runs on. A new one: its unpacker or dequantiser in `kernels/`, and one row here."""

from __future__ import annotations

from dataclasses import dataclass

from lacewing.backends.cpu.isa import host_isa
from lacewing.errors import UnsupportedModelError
from lacewing.quants.base import Quant


@dataclass(frozen=True)
class TileKernels:
    """A quant that is unpacked to bytes and multiplied with byte activations.

    `shift`: the bytes are the true value + 2**shift; None: true bytes, with a minimum for each sub-block.
    `wide`: bytes above 63 occur, which instruction sets with saturating pair sums must treat apart. `single`: the kernel for
    one token, without a tile; instruction sets of 4 lanes do not use it.
    """

    unpack: str
    shift: int | None
    sub_block: int = 32
    wide: bool = False
    single: str = ""

    @property
    def tiled(self) -> str:
        """As `single`, for weights in tile order."""
        return self.single.replace(".single_", ".tiled_")

    @property
    def dot(self) -> str:
        """The dot kernel's name."""
        if self.wide and host_isa().dot == "maddubs":
            return "dot.wide32"
        return f"dot.{'minimum' if self.shift is None else 'offset'}{self.sub_block}"

    @property
    def sums_at(self) -> float:
        """Where the sums that the dot kernel reads lie in an activation row, as a share of its columns (kernels/activations.py)."""
        if self.shift is None:
            return 1.125 if self.sub_block == 32 else 1.25
        return 1.5 if self.sub_block == 32 else 1.625

    @property
    def sum_bytes(self) -> int:
        """Bytes of sums for 32 columns."""
        return 4 * 32 // self.sub_block


TILES = {
    "Q4_0": TileKernels("unpack_32.unpack_q4_0", 3, single="single_32.single_q4_0"),
    "Q4_1": TileKernels("unpack_32.unpack_q4_1", None, single="single_32.single_q4_1"),
    "Q5_0": TileKernels("unpack_32.unpack_q5_0", 4, single="single_32.single_q5_0"),
    "Q5_1": TileKernels("unpack_32.unpack_q5_1", None, single="single_32.single_q5_1"),
    "Q8_0": TileKernels("unpack_32.unpack_q8_0", 7, wide=True, single="single_32.single_q8_0"),
    "IQ4_NL": TileKernels("unpack_table.unpack_iq4_nl", 7, wide=True),
    "IQ4_XS": TileKernels("unpack_table.unpack_iq4_xs", 7, wide=True),
    "MXFP4": TileKernels("unpack_table.unpack_mxfp4", 4),
    "Q2_K": TileKernels("unpack_k_small.unpack_q2_k", None, sub_block=16),
    "Q3_K": TileKernels("unpack_k_small.unpack_q3_k", 2, sub_block=16),
    "Q4_K": TileKernels("unpack_k.unpack_q4_k", None, single="single_k.single_q4_k"),
    "Q5_K": TileKernels("unpack_k.unpack_q5_k", None, single="single_k.single_q5_k"),
    "Q6_K": TileKernels("unpack_k.unpack_q6_k", 5, sub_block=16, single="single_k.single_q6_k"),
}
FLOATS = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
SCALED_FLOATS = {"F8_E4M3": "f8", "F4_E2M1": "f4"}  # with a factor for each block of rows and columns: lower_scaled.py
GENERIC = {
    "IQ1_S": "dequantise_iq1.dequantise_iq1_s",
    "IQ1_M": "dequantise_iq1.dequantise_iq1_m",
    "IQ2_XXS": "dequantise_iq2.dequantise_iq2_xxs",
    "IQ2_XS": "dequantise_iq2.dequantise_iq2_xs",
    "IQ2_S": "dequantise_iq2.dequantise_iq2_s",
    "IQ3_XXS": "dequantise_iq3.dequantise_iq3_xxs",
    "IQ3_S": "dequantise_iq3.dequantise_iq3_s",
    "TQ1_0": "dequantise_few_bits.dequantise_tq1_0",
    "TQ2_0": "dequantise_few_bits.dequantise_tq2_0",
    "Q1_0": "dequantise_few_bits.dequantise_q1_0",
    "Q2_0": "dequantise_few_bits.dequantise_q2_0",
    "NVFP4": "dequantise_few_bits.dequantise_nvfp4",
    "F64": "dequantise_plain.dequantise_f64",
    "I8": "dequantise_plain.dequantise_i8",
    "I16": "dequantise_plain.dequantise_i16",
    "I32": "dequantise_plain.dequantise_i32",
    "I64": "dequantise_plain.dequantise_i64",
}


def kernels_of(quant: Quant) -> TileKernels | str:
    """Tile kernels, or the name of a float kind, or that of a dequantiser kernel. Raises UnsupportedModelError."""
    for table in (TILES, FLOATS, SCALED_FLOATS, GENERIC):
        if quant.name in table:
            return table[quant.name]
    known = ", ".join([*TILES, *FLOATS, *SCALED_FLOATS, *GENERIC])
    raise UnsupportedModelError(f"the CPU backend has no kernel for {quant.name}; it has {known}")
