"""Cases of the gated delta rule for the tests of backends."""

from __future__ import annotations

import numpy as np

from lacewing.program.ops import Buffer, GatedDelta
from lacewing.program.states import FixedState
from tests.backends.cpu.single_ops import Batch, Case, floats, normal

# heads, key heads, rows and columns of a state: real ones, and such as fill no register
SHAPES = [(4, 2, 128, 128), (3, 3, 16, 48), (6, 2, 5, 7), (1, 1, 33, 40)]
# pieces of several rows, alone and together; longer than the tokens that are prepared at a time; a sequence begins anew
BATCHES: list[Batch] = [([0] * 5 + [2], [0, 1, 2, 3, 4, 0]), ([2, 2, 0], [1, 2, 5]), ([1] * 64, list(range(64)))]
BATCHES += [([0, 1, 2], [6, 64, 3]), ([0] * 2, [0, 1])]
COUNT = sum(len(rows) for rows, _ in BATCHES)


def delta_case(
    heads: int, key_heads: int, rows: int, width: int, tiled: bool = False, log_rate: bool = False, by_row: bool = False
) -> Case:
    """Random inputs, with some that are all zeros, decays from none at all to everything, and keys of any length."""
    sizes = {"q": key_heads * rows, "k": key_heads * rows, "v": heads * width, "decay": heads * (rows if by_row else 1),
             "beta": heads}  # fmt: skip
    buffer, out = Buffer("x", sum(sizes.values())), Buffer("out", heads * width).view()
    starts = np.cumsum([0, *sizes.values()])
    views = [buffer.view(int(start), size) for start, size in zip(starts, sizes.values(), strict=False)]
    x = normal(COUNT, buffer.width, seed=1)
    x[:, starts[3] : starts[4]] *= 4
    x[7] = 0
    rate = -np.abs(normal(heads, seed=2)) * 3 - 1e-3
    weights = {"rate": floats("rate", np.log(-rate) if log_rate else rate), "bias": floats("bias", normal(sizes["decay"], seed=3))}
    op = GatedDelta(*views, out, "rate", "bias", 0, heads, key_heads, rows**-0.5, 1e-6, log_rate, tiled)
    return Case((op,), x, out, weights, (FixedState((("delta", (heads, rows, width)),)),))
