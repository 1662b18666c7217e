"""How many tokens each expert of a mixture got, of all sequences, and how many experts runs read: cheap enough to count while a
server runs."""

from __future__ import annotations

from collections import Counter

import numpy as np

from lacewing.backends.step import RoutedLayer


class ExpertLoads:
    """An observer for `Engine.observe`."""

    def __init__(self) -> None:
        self._counts: dict[int, np.ndarray] = {}  # int64 (E,) by layer
        self._reads: Counter[int] = Counter()

    def __call__(self, positions: np.ndarray, routes: list[RoutedLayer]) -> None:
        for each in routes:
            experts = each.probabilities.shape[1]
            found = np.bincount(each.ids.reshape(-1), minlength=experts)
            self._reads[each.layer] += int(np.count_nonzero(found))
            if each.layer in self._counts:
                self._counts[each.layer] += found
            else:
                self._counts[each.layer] = found

    def layers(self) -> dict[int, list[int]]:
        """Tokens of each expert, by layer; empty before the first token."""
        return {layer: counts.tolist() for layer, counts in sorted(self._counts.copy().items())}

    def reads(self) -> dict[int, int]:
        """Experts that runs read, by layer: of each run the different ones that some token was sent to."""
        return dict(sorted(self._reads.copy().items()))
