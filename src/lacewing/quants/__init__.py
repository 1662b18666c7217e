"""Block formats: how weights are packed. One file a format; this table is all that the rest needs.

`QUANTS` maps names to formats; `by_ggml_id` and `by_name` look one up and raise UnsupportedModelError.
"""

from __future__ import annotations

from lacewing.errors import UnsupportedModelError
from lacewing.quants.base import Quant
from lacewing.quants.fp4 import F4_E2M1, F8_E8M0
from lacewing.quants.fp8 import F8_E4M3
from lacewing.quants.iq1_m import IQ1_M
from lacewing.quants.iq1_s import IQ1_S
from lacewing.quants.iq2_s import IQ2_S
from lacewing.quants.iq2_xs import IQ2_XS
from lacewing.quants.iq2_xxs import IQ2_XXS
from lacewing.quants.iq3_s import IQ3_S
from lacewing.quants.iq3_xxs import IQ3_XXS
from lacewing.quants.iq4_nl import IQ4_NL
from lacewing.quants.iq4_xs import IQ4_XS
from lacewing.quants.mxfp4 import MXFP4
from lacewing.quants.nvfp4 import NVFP4
from lacewing.quants.plain import BF16, BOOL, F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64
from lacewing.quants.q1_0 import Q1_0
from lacewing.quants.q2_0 import Q2_0
from lacewing.quants.q2_k import Q2_K
from lacewing.quants.q3_k import Q3_K
from lacewing.quants.q4_0 import Q4_0
from lacewing.quants.q4_1 import Q4_1
from lacewing.quants.q4_k import Q4_K
from lacewing.quants.q5_0 import Q5_0
from lacewing.quants.q5_1 import Q5_1
from lacewing.quants.q5_k import Q5_K
from lacewing.quants.q6_k import Q6_K
from lacewing.quants.q8_0 import Q8_0
from lacewing.quants.tq1_0 import TQ1_0
from lacewing.quants.tq2_0 import TQ2_0

_ALL = (F32, F16, BF16, F64, I8, I16, I32, I64, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q1_0, Q2_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K,
        IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S, IQ4_NL, IQ4_XS, TQ1_0, TQ2_0, MXFP4, NVFP4,
        F4_E2M1, F8_E4M3, F8_E8M0, BOOL, U8, U16, U32, U64)  # fmt: skip
QUANTS: dict[str, Quant] = {quant.name: quant for quant in _ALL}
_BY_ID: dict[int, Quant] = {quant.ggml_id: quant for quant in _ALL if quant.ggml_id is not None}
# Known numbers that no checkpoint can hold as weights, and why.
_REFUSED = {4: "was removed from the format (the first files of gpt-oss that Ollama made use it too; fetch a newer one)",
            5: "was removed from the format", 9: "is for activations only",
            15: "is for activations only", **dict.fromkeys((31, 32, 33, 36, 37, 38), "was removed from the format")}  # fmt: skip


def by_ggml_id(ggml_id: int) -> Quant:
    """The format with this number in GGUF files. Raises UnsupportedModelError."""
    quant = _BY_ID.get(ggml_id)
    if quant is None:
        raise UnsupportedModelError(f"tensor type {ggml_id} {_REFUSED.get(ggml_id, 'is unknown to this version')}")
    return quant


def by_name(name: str) -> Quant:
    """The format called so, as in `Q4_K`. Raises UnsupportedModelError."""
    quant = QUANTS.get(name)
    if quant is None:
        raise UnsupportedModelError(f"tensor type {name!r} is unknown to this version; it knows {', '.join(QUANTS)}")
    return quant


__all__ = ["QUANTS", "Quant", "by_ggml_id", "by_name"]
