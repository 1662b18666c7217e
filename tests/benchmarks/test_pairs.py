import math

import pytest
from benchmarks.pairs import interval


def test_interval():
    mean, low, high = interval([1.1, 0.9, 1.0, 1.05, 0.95] * 2)
    logs = [math.log(value) for value in [1.1, 0.9, 1.0, 1.05, 0.95] * 2]
    assert mean == pytest.approx(math.exp(sum(logs) / 10))
    assert low < mean < high < 1.1
    assert interval([1.2])[1] == 0
    assert interval([2.0] * 30) == (2.0, 2.0, 2.0)
