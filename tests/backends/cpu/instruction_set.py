"""A short run over the whole backend for the instruction set of this process.

    LACEWING_CPU=portable python -m tests.backends.cpu.instruction_set [--all | --products]

Each kernel takes the compiler a second or several: without `--all`, which the slow tests give, there is one of each way of
unpacking and multiplying, norms, heads and attention. `--products`: of these, what depends on more than the width of a vector.
Numba and the kernels are made for one instruction set a process, so test_instruction_sets.py starts this as a process.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from lacewing.backends.cpu import CpuBackend
from lacewing.backends.cpu.isa import host_isa
from lacewing.options import KV_TYPES
from tests.backends.cpu import checks
from tests.backends.cpu.selection import selection_case
from tests.backends.cpu.single_ops import Batch, nmse, one_batch
from tests.backends.delta import delta_case
from tests.checkpoints import prompt_of, tiny
from tests.models.running import open_step, run

# each dot kernel, each way of unpacking; then floats, and one generic kernel
BYTES, OTHERS = ("Q4_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q5_K", "Q6_K", "IQ4_XS", "MXFP4"), ("F16", "IQ2_XXS")
ONE_TOKEN = (("Q4_0", 160), ("Q5_1", 128), ("Q8_0", 352), ("Q5_K", 256), ("Q6_K", 768))
TILED = (("Q4_0", 352), ("Q5_1", 32), ("Q8_0", 576), ("Q5_K", 256), ("Q6_K", 768), ("Q3_K", 256), ("MXFP4", 288))


def main() -> None:
    products()
    if "--products" not in sys.argv[1:]:
        the_rest()
    print(f"{host_isa().name} works")


def products() -> None:
    """Of bytes: what has instructions of its own."""
    lanes = host_isa().lanes
    for quant in BYTES:
        checks.check_linear(quant, 2 * lanes + 3, 256 if quant != "Q4_0" else 96, (1, 2, 9))
    checks.check_linear("Q8_0", lanes - 1, 64, (1, 5))
    for quant, width in ONE_TOKEN:
        checks.check_one_token(quant, 2 * lanes + 1, width)
    for quant, width in TILED:
        checks.check_tiled_linear(quant, 3 * lanes, width)
    for quant in ("Q4_0", "Q5_1", "Q8_0", "Q3_K", "Q6_K"):
        checks.check_extremes(quant, 3 * lanes, checks.largest_activations())


def the_rest() -> None:
    lanes, batches = host_isa().lanes, [*one_batch(1), *one_batch(19, 1), *one_batch(1, 20)]
    for quant in OTHERS:
        checks.check_linear(quant, 2 * lanes + 3, 256, (1, 2, 9))
    for quant in ("Q4_0", "Q2_K", "F16", "IQ2_XXS"):
        checks.check_embedding(quant)
    cases = [
        checks.norm_case(100, 1, True, True),
        checks.heads_case(3, 20, 10, False, True),
        checks.heads_case(2, 64, 16, True, False),
        checks.gated_case(45, "silu", False),
        checks.gated_case(96, "gelu_tanh", True),
    ]
    for case in cases:
        checks.check_against_reference(case, batches)
    for case in (checks.attention_case(21, 6, 3, 20, 12), checks.attention_case(21, 4, 1, 64, 64, 7, 5.0)):
        checks.check_against_reference(case, batches, 5e-6)
    if "--all" in sys.argv[1:]:
        more(lanes, batches)
    whole_model()


def more(lanes: int, batches: list[Batch]) -> None:
    """Quants whose kernels do parts of what those of others do, and kernels that are made of the same vector operations."""
    for quant, width in (("Q4_1", 96), ("Q5_0", 288), ("Q4_K", 512)):
        checks.check_one_token(quant, 2 * lanes + 1, width)
    for quant, width in (("Q4_1", 64), ("Q5_0", 96), ("Q4_K", 512)):
        checks.check_tiled_linear(quant, 3 * lanes, width)
    checks.check_against_reference(checks.scan_case(21, 4, 2, 3 * lanes + 3, 16), batches, 5e-6)
    checks.check_against_reference(delta_case(4, 2, 16, 3 * lanes + 3), batches, 5e-6)
    checks.check_against_reference(selection_case(21, 9), batches, 5e-6)
    for quant, block, width in (("F8_E4M3", (5, 48), 3 * lanes + 3), ("F8_E4M3", (128, 128), 160), ("F4_E2M1", (1, 32), 160)):
        checks.check_scaled(quant, block, lanes + 3, width)
    for dtype in KV_TYPES:
        checks.check_against_reference(checks.state_case(21, dtype), batches, 5e-6)


def whole_model() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, ids = tiny("gemma2", "gguf", Path(folder), "Q8_0"), prompt_of("gemma2")
        found = []
        for threads in (1, 2):
            _, step = open_step(path, None, CpuBackend(threads))
            found.append(run(step, ids))
            step.close()
        expected = run(open_step(path)[1], ids)
    if not np.array_equal(*found) or nmse(found[0], expected) > 2e-3:
        raise AssertionError(f"logits are off: {nmse(found[0], expected)}")


if __name__ == "__main__":
    sys.exit(main())
