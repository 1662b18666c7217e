"""The program: the list of ops of one step, with the weights that they use and the states that they keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lacewing.program.operands import Op
from lacewing.program.states import Group, PagedState, State, groups_of


@dataclass(frozen=True)
class Program:
    """One step over T tokens. T, token ids, rows, positions and output rows are run-time inputs.

    `weights` gives every weight name that the ops use, with its shape, outermost axis first; `states` what is remembered.
    """

    ops: tuple[Op, ...]
    weights: Mapping[str, tuple[int, ...]]
    states: tuple[State, ...]
    vocab_size: int

    def with_kv_type(self, dtype: str) -> Program:
        """The same with its paged states in another precision, one of `options.KV_TYPES`."""
        states = (state.stored_as(dtype) if isinstance(state, PagedState) else state for state in self.states)
        return replace(self, states=tuple(states))

    @property
    def groups(self) -> tuple[Group, ...]:
        return groups_of(self.states)

    def __str__(self) -> str:
        return "\n".join(str(op) for op in self.ops)
