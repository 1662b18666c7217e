"""How far two runs of the same model on the reference backend may lie apart.

NumPy promises no bits: the order in which its BLAS sums depends on the number of rows, on the CPU and on where an array lies,
and its exp and tanh differ between CPUs. So results of the reference backend are compared with `assert_equal_up_to_rounding`,
even where the same numbers are computed twice. Our CPU kernels do promise bits; their tests use `np.array_equal`.

Greedy texts and chosen experts may be compared exactly: the tiny checkpoints come from fixed seeds, and wherever a test compares
choices, the best and the next logit are 2e-4 apart or more, the scores of routers forty times their rounding.
"""

from __future__ import annotations

import numpy as np

# Of the largest value. A float32 sum is off by about 2**-24 of it for each of some forty ops; the most that was measured is 3e-6,
# over all tiny checkpoints, five ways to cut a prompt and OPENBLAS_CORETYPE=Haswell, SkylakeX, Prescott and Sandybridge.
ROUNDING = 2.0**-16


def assert_equal_up_to_rounding(found: np.ndarray, expected: np.ndarray) -> None:
    """Two arrays of one shape whose values were summed in any order, in float32."""
    assert found.shape == expected.shape and found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDING * float(np.abs(expected).max()))


# What each backend promises of the same model and the same ids.
SAME = {"reference": assert_equal_up_to_rounding, "cpu": np.testing.assert_array_equal}
