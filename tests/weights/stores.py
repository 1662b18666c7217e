"""What the tests of this folder do to a store."""

from __future__ import annotations

import itertools

from lacewing.errors import Cancelled
from lacewing.weights import WeightStore


def contents(weights: WeightStore) -> dict[str, list[bytes]]:
    """The bytes of all weights, part by part."""
    return {name: [part.tobytes() for part in weight.parts] for name, weight in weights.items()}


def cancelled_at_every_look(weights: WeightStore) -> int:
    """Make lazy weights eager, cancelled at the first look, at the second and so on; at how many until it went through.

    Each time they must be lazy as before.
    """
    before = contents(weights)
    for looks in itertools.count():
        left = iter(range(looks))
        try:
            weights.set_residency("eager", cancelled=lambda left=left: next(left, None) is None)
        except Cancelled:
            assert weights.residency == "lazy" and weights.anonymous_bytes == 0 and contents(weights) == before
        else:
            break
    return looks
