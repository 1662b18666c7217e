"""An answer that follows one of several constraints: which one, its tokens show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lacewing.engine.constraint import Constraint


class EitherConstraint:
    """See `engine.constraint.Constraint`. What a token leads away from is dropped; all that are left may still be meant."""

    def __init__(self, constraints: Sequence[Constraint]):
        self._left = list(constraints)

    def mask(self) -> np.ndarray | None:
        whole: np.ndarray | None = None
        for each in self._left:
            mask = each.mask()
            if mask is None:
                return None
            whole = mask if whole is None else whole | mask
        return whole

    def accept(self, token: int) -> bool:
        left = [each for each in self._left if each.accept(token)]
        if left:
            self._left = left
        return bool(left)

    def stopped(self) -> bool:
        return all(each.stopped() for each in self._left)
