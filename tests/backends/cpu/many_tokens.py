"""Products with many tokens: prints a line with a digest of the bits of each, the same for every instruction set.

    LACEWING_CPU=avx2 python -m tests.backends.cpu.many_tokens
    LACEWING_CACHE=FOLDER python -m tests.backends.cpu.many_tokens --emulated

kernels/test_amx.py compares the lines. `--emulated`: see emulated_tiles.py.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from lacewing.program.ops import Buffer, ExpertLinear, Linear, Route
from tests.backends.cpu import emulated_tiles
from tests.backends.cpu.single_ops import Batch, Case, floats, normal, one_batch, random_weight
from tests.models.running import MappedWeight

# Each dot kernel. Rows: whole jobs of 4 tiles, a rest, and a tile that shares rows; columns: whole tiles, parts of one, or both.
SHAPES = [("Q4_K", 208, 512), ("Q5_1", 85, 288), ("Q2_K", 64, 256), ("Q8_0", 96, 352), ("IQ4_NL", 37, 96), ("Q6_K", 128, 768)]
SHAPES += [("Q3_K", 23, 256), ("MXFP4", 144, 32), ("Q8_0", 16, 9216)]  # the last: more activations than the second cache holds
TOKENS = (7, 16, 17, 24, 31, 64)
EXPERTS, ACTIVE = 3, 2


def cases() -> Iterator[tuple[str, Case]]:
    for quant, rows, width in SHAPES:
        x, y = Buffer("x", width).view(), Buffer("y", rows).view()
        weights = {"w": random_weight("w", quant, rows, width), "b": floats("b", normal(rows, seed=1))}
        yield f"{quant} {rows} x {width}", Case((Linear(x, ("w",), (y,), ("b",)),), normal(64, width, seed=2), y, weights)
    for quant, rows, width in (("Q4_K", 48, 512), ("Q8_0", 32, 96), ("Q6_K", 16, 256)):
        whole, ids, chosen = Buffer("x", width + EXPERTS), Buffer("ids", ACTIVE).view(), Buffer("chosen", ACTIVE).view()
        y, stack = Buffer("y", ACTIVE * rows).view(), random_weight("w", quant, EXPERTS * rows, width)
        ops = (Route(whole.view(width), ids, chosen), ExpertLinear(whole.view(0, width), ids, ("w",), (y,)))
        weights = {"w": MappedWeight("w", (EXPERTS, rows, width), stack.quant, stack.data)}
        yield f"experts {quant} {rows} x {width}", Case(ops, normal(64, width + EXPERTS, seed=3), y, weights)


def digests() -> Iterator[str]:
    for name, case in cases():
        kinds = {"lazy": case}
        if case.weights["w"].shape[-2] % 16 == 0:
            kinds["eager"] = replace(case, tiled=frozenset({"w"}))
        for kind, each in kinds.items():
            for count in TOKENS if case.x.shape[1] < 9000 else (17, 64):
                batches: list[Batch] = one_batch(count)
                found = each.run(batches)
                assert np.isfinite(found).all()
                yield f"{name} {kind}, {count} tokens: {hashlib.sha256(found.tobytes()).hexdigest()[:16]}"


def main() -> None:
    if "--emulated" in sys.argv[1:]:
        emulated_tiles.use()
    for line in digests():
        print(line, flush=True)


if __name__ == "__main__":
    main()
