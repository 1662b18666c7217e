"""What a model remembers of a sequence between two runs: paged states, that grow with its positions, and fixed ones.

States of equal shape and reach form a `Group`: they share block tables, so that a page id stands for the same positions in all
of them. The engine owns ids and counts of pages and units, never bytes; a step owns the bytes, never policy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

PAGE = 128  # positions of a page, on every backend
Q8_BLOCK, Q8_BLOCK_BYTES = 32, 34  # of GGUF's Q8_0: a float16 scale, then 32 int8

# Units besides those of running sequences: so many or bytes at most, but enough to go on behind the system prompt, behind a
# question and behind an answer, however large they are.
SPARE_UNITS, SPARE_BYTES, SPARE_LEAST = 8, 64 << 20, 3
_ITEM_BYTES = {"f16": 2, "f32": 4}


class Part(NamedTuple):
    """What is stored for each position: `heads` rows of `width` values. `dtype` "f16", "f32" or "q8_0" (blocks along a row)."""

    name: str
    heads: int
    width: int
    dtype: str = "f16"

    @property
    def row_bytes(self) -> int:
        """Of the `width` values of one head."""
        return self.width // Q8_BLOCK * Q8_BLOCK_BYTES if self.dtype == "q8_0" else self.width * _ITEM_BYTES[self.dtype]

    @property
    def page_bytes(self) -> int:
        return PAGE * self.heads * self.row_bytes


class Window(NamedTuple):
    """A query at position p sees positions above p - `size` only."""

    size: int

    def first_seen(self, position: int) -> int:
        return max(0, position - self.size + 1)


class Chunk(NamedTuple):
    """A query at position p sees positions from p // `size` * `size` on only."""

    size: int

    def first_seen(self, position: int) -> int:
        return position // self.size * self.size


@dataclass(frozen=True)
class PagedState:
    """Grows with the positions of a sequence. `reach` None: every earlier position can be seen.

    Parts: "keys" and "values" of attention; `latent`: the values are the first values of the keys, which have no part of their own.
    "index", the last: the keys that `SelectKeys` scores.
    """

    parts: tuple[Part, ...]
    reach: Window | Chunk | None = None
    latent: bool = False

    @property
    def page_bytes(self) -> int:
        return sum(part.page_bytes for part in self.parts)

    def part(self, name: str) -> Part | None:
        """The part of that name."""
        return next((part for part in self.parts if part.name == name), None)

    def stored_as(self, dtype: str) -> PagedState:
        return replace(self, parts=tuple(part._replace(dtype=dtype) for part in self.parts))

    def first_seen(self, position: int) -> int:
        """The first position that a query at `position` can see."""
        return 0 if self.reach is None else self.reach.first_seen(position)

    def live_pages(self, context: int, run: int) -> int:
        """Most pages that a sequence of `context` positions needs at once, when `run` tokens run together."""
        whole = -(-context // PAGE)
        if self.reach is None:
            return whole
        return min(whole, -(-(self.reach.size + min(run, context) - 1) // PAGE) + 1)


@dataclass(frozen=True)
class FixedState:
    """A unit of constant size a sequence, float32. Parts: a name and a shape each, such as ("conv", (2, 1024))."""

    parts: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def unit_bytes(self) -> int:
        return 4 * sum(math.prod(shape) for _, shape in self.parts)


State = PagedState | FixedState


@dataclass(frozen=True)
class Group:
    """The states (indices into `Program.states`) that share tables."""

    state: State
    members: tuple[int, ...]

    @property
    def paged(self) -> bool:
        return isinstance(self.state, PagedState)

    @property
    def nbytes(self) -> int:
        """Of one page, or of one unit, of all members."""
        one = self.state.page_bytes if isinstance(self.state, PagedState) else self.state.unit_bytes
        return one * len(self.members)

    @property
    def limited(self) -> bool:
        """Whether a later position may be unable to see the first one, or all that is left of it is in a unit."""
        return not isinstance(self.state, PagedState) or self.state.reach is not None

    def planned(self, context: int, run: int, rows: int, positions: int = 0) -> int:
        """Pages or units that there is to be memory for: of one sequence of the whole context, and of each further row as many if
        reach is limited; if not, rows compete for the pages, of `positions` in all where these are more. Some more units are for
        resume points."""
        count = self.live(context, run) * rows if self.limited else self.live(max(context, positions), run)
        return count if self.paged else count + max(SPARE_LEAST, min(SPARE_UNITS, SPARE_BYTES // self.nbytes))

    def live(self, context: int, run: int) -> int:
        """Most pages or units that a sequence holds at once; of units one is read while another is written."""
        return self.state.live_pages(context, run) if isinstance(self.state, PagedState) else 2


def groups_of(states: Sequence[State]) -> tuple[Group, ...]:
    """Paged groups and fixed ones, in the order of their first members."""
    members: dict[State, list[int]] = {}
    for index, state in enumerate(states):
        members.setdefault(state, []).append(index)
    return tuple(Group(state, tuple(found)) for state, found in members.items())
