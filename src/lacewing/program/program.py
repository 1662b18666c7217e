"""The program: the list of ops of one step, with the weights that they use and the states that they keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lacewing.program.operands import Op
from lacewing.program.ops import Attention, Hadamard, Logits, SelectKeys, WriteKeysValues
from lacewing.program.states import Group, PagedState, State, groups_of
from lacewing.program.stream_ops import Lookup


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
        """The same with its paged states in another precision, one of `options.KV_TYPES`.

        Keys that are rounded to q8_0 are spread first, and so are the queries that meet them; latent keys are values too, and stay.
        Those of an index are spread as well.
        """
        states = (state.stored_as(dtype) if isinstance(state, PagedState) else state for state in self.states)
        made: list[Op] = []
        for op in self.ops:
            if isinstance(op, Hadamard):
                continue
            if dtype == "q8_0" and isinstance(op, WriteKeysValues | SelectKeys | Attention):
                made += self._spread(op)
            made.append(op)
        return replace(self, ops=tuple(made), states=tuple(states))

    def _spread(self, op: WriteKeysValues | SelectKeys | Attention) -> list[Op]:
        state = self.states[op.state]
        if not isinstance(state, PagedState):
            return []
        made: list[Op] = []
        index = state.part("index")
        if not state.latent and not isinstance(op, SelectKeys):
            heads, width = state.parts[0].heads, state.parts[0].width
            writes = isinstance(op, WriteKeysValues)
            made.append(Hadamard(op.k if isinstance(op, WriteKeysValues) else op.q, heads if writes else op.heads, width & -width))  # type: ignore[union-attr]
        if index is not None and isinstance(op, WriteKeysValues) and op.index is not None:
            made.append(Hadamard(op.index, 1, index.width & -index.width))
        if index is not None and isinstance(op, SelectKeys):
            made.append(Hadamard(op.q, op.heads, index.width & -index.width))
        return made

    @property
    def head(self) -> Logits | None:
        """The output head, which reads the hidden states after the final norm; None: another part of the program has it."""
        last = self.ops[-1] if self.ops else None
        return last if isinstance(last, Logits) else None

    @property
    def tables(self) -> frozenset[str]:
        """The weights that are read by rows from their files and nowhere else (`Lookup`)."""
        names: dict[bool, set[str]] = {True: set(), False: set()}
        for op in self.ops:
            names[isinstance(op, Lookup)].update(op.weight_names)
        return frozenset(names[True] - names[False])

    @property
    def groups(self) -> tuple[Group, ...]:
        return groups_of(self.states)

    def __str__(self) -> str:
        return "\n".join(str(op) for op in self.ops)
