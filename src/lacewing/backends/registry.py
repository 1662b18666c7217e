"""The rules by which a backend lowers ops: one for each kind, the same table in every backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from lacewing.errors import UnsupportedModelError
from lacewing.program.ops import Op

R = TypeVar("R", bound=Callable[..., object])


class Rules(Generic[R]):
    """One function for each kind of op. A second rule for a kind is refused, so that the order of imports decides nothing."""

    def __init__(self, backend: str):
        self._backend = backend
        self._rules: dict[type[Op], R] = {}

    def rule(self, *kinds: type[Op]) -> Callable[[R], R]:
        """Decorator: marks the function for ops of these kinds. Raises ValueError for a kind that has a rule already."""

        def register(function: R) -> R:
            for kind in kinds:
                if kind in self._rules:
                    before, now = self._rules[kind].__qualname__, function.__qualname__
                    raise ValueError(f"the {self._backend} backend has two rules for {kind.__name__}: {before} and {now}")
                self._rules[kind] = function
            return function

        return register

    def __getitem__(self, op: Op) -> R:
        """The rule for an op. Raises UnsupportedModelError where the backend has none."""
        found = self._rules.get(type(op))
        if found is None:
            raise UnsupportedModelError(f"the {self._backend} backend cannot run the op {op.kind}")
        return found

    @property
    def kinds(self) -> frozenset[type[Op]]:
        """All kinds that have a rule."""
        return frozenset(self._rules)
