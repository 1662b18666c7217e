"""Who stays: what is used often of late."""

import numpy as np
import pytest

from lacewing.weights.experts.policy import HALF_LIFE, Usage


def use(usage, clock, experts):
    for expert in experts:
        usage.counts[expert] = usage.counts[expert, 0] + 1, clock


def test_frequency_and_age():
    usage = Usage(4, 2)
    for clock in range(1, 9):
        use(usage, clock, [0, 1 if clock < 6 else 2])
    scores = usage.scores(8)
    assert scores[0] > scores[2] > scores[1] > scores[3] == 0
    halved = usage.scores(8 + HALF_LIFE)[0] * (1 + HALF_LIFE)
    assert halved == pytest.approx(scores[0] / 2)


@pytest.mark.parametrize("tokens", [2, 100, 512])
def test_tokens_of_a_prompt_count_as_if_they_came_one_by_one(tokens):
    """So that what a long prompt has used does not keep out what the answer uses."""
    together, apart = Usage(8, 2), Usage(8, 2)
    rng = np.random.default_rng(0)
    for clock in range(1, tokens + 1):
        chosen = rng.permutation(8)[:2]
        use(together, 1, chosen)
        use(apart, clock, chosen)
        apart.look(clock)
    together.look(1)
    assert together.frequency.sum() == pytest.approx(apart.frequency.sum(), rel=0.02)
    assert together.history.sum() == pytest.approx(apart.history.sum(), rel=0.02)
