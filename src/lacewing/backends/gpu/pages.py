"""How a page of the KV cache stands on the device, and how it becomes the bytes that mean the same on every backend.

A page of a state is 128 positions: all keys, then all values, then an index, each (head, position, width). Rows are whole chunks of
eight values with zeros behind. In q8_0 the int8 of a row come first, then a float16 scale for each 32 of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lacewing.errors import UnsupportedModelError
from lacewing.program.program import Program
from lacewing.program.states import PAGE, Q8_BLOCK, Q8_BLOCK_BYTES, Group, PagedState, State

CHUNK = 8  # values that kernels load at a time


@dataclass(frozen=True)
class RowLayout:
    """The rows of one part: `width` values in `dtype`. `words` of 32 bits a row, of which the first `value_words` are values."""

    heads: int
    width: int
    dtype: str

    @property
    def chunks(self) -> int:
        return -(-self.width // CHUNK)

    @property
    def value_words(self) -> int:
        return self.chunks * CHUNK // {"f32": 1, "f16": 2, "q8_0": 4}[self.dtype]

    @property
    def words(self) -> int:
        return self.value_words + (-(-self.width // Q8_BLOCK // 2) if self.dtype == "q8_0" else 0)

    @property
    def page_words(self) -> int:
        return PAGE * self.heads * self.words

    def canonical(self, words: np.ndarray) -> np.ndarray:
        """uint8 (pages, bytes of the part) of uint32 (pages, page_words); see `backends.step.Step.read`."""
        rows = words.reshape(-1, self.words).view(np.uint8)
        if self.dtype == "q8_0":
            blocks = self.width // Q8_BLOCK
            found = np.empty((len(rows), blocks, Q8_BLOCK_BYTES), np.uint8)
            found[..., :2] = rows[:, self.width : self.width + 2 * blocks].reshape(-1, blocks, 2)
            found[..., 2:] = rows[:, : self.width].reshape(-1, blocks, Q8_BLOCK)
            return found.reshape(len(words), -1)
        return np.ascontiguousarray(rows[:, : self.width * (2 if self.dtype == "f16" else 4)]).reshape(len(words), -1)

    def stored(self, data: np.ndarray) -> np.ndarray:
        """The other way."""
        pages = len(data)
        rows = np.zeros((pages * PAGE * self.heads, 4 * self.words), np.uint8)
        if self.dtype == "q8_0":
            blocks = self.width // Q8_BLOCK
            found = data.reshape(len(rows), blocks, Q8_BLOCK_BYTES)
            rows[:, : self.width] = found[..., 2:].reshape(len(rows), -1)
            rows[:, self.width : self.width + 2 * blocks] = found[..., :2].reshape(len(rows), -1)
        else:
            nbytes = self.width * (2 if self.dtype == "f16" else 4)
            rows[:, :nbytes] = data.reshape(len(rows), nbytes)
        return rows.view(np.uint32).reshape(pages, -1)


@dataclass(frozen=True)
class PageLayout:
    """A page of a state. A latent one has no rows of values: these are the first `value_width` values of the keys.

    `tables`: the word of the step's inputs where the block tables of the group begin, of `table_width` pages a row.
    """

    keys: RowLayout
    values: RowLayout | None
    value_width: int
    tables: int
    table_width: int
    index: RowLayout | None = None  # keys that `SelectKeys` scores

    @property
    def dtype(self) -> str:
        return self.keys.dtype

    @property
    def key_heads(self) -> int:
        return self.keys.heads

    @property
    def key_width(self) -> int:
        return self.keys.width

    @property
    def key_chunks(self) -> int:
        return self.keys.chunks

    @property
    def value_chunks(self) -> int:
        return -(-self.value_width // CHUNK)

    @property
    def value_rows(self) -> RowLayout:
        """The rows that hold values."""
        return self.keys if self.values is None else self.values

    @property
    def words(self) -> int:
        """Of a page."""
        return sum(rows.page_words for rows in self.parts)

    @property
    def parts(self) -> tuple[RowLayout, ...]:
        return tuple(rows for rows in (self.keys, self.values, self.index) if rows is not None)

    @property
    def index_words(self) -> int:
        """Words of a page before the index."""
        return self.words - (self.index.page_words if self.index else 0)


def page_layout(state: PagedState, tables: int = 0, table_width: int = 0, value_width: int | None = None) -> PageLayout:
    """`value_width`: of a latent state, where somebody reads values."""
    rows = {part.name: RowLayout(part.heads, part.width, part.dtype) for part in state.parts}
    keys, values = rows["keys"], rows.get("values")
    width = value_width if value_width is not None else values.width if values else keys.width
    return PageLayout(keys, values, width, tables, table_width, rows.get("index"))


def state_bytes(state: State) -> int:
    """Of a page, or of a unit, on the device."""
    return 4 * page_layout(state).words if isinstance(state, PagedState) else state.unit_bytes


def layout_of(program: Program, state: int, tables: int, table_width: int, value_width: int | None = None) -> PageLayout:
    """Of a state by its index. Raises UnsupportedModelError for one that is not paged."""
    found = program.states[state]
    if not isinstance(found, PagedState):
        raise UnsupportedModelError(f"state {state} is recurrent and has no KV cache; attention cannot read it")
    return page_layout(found, tables, table_width, value_width)


def canonical(group: Group, words: np.ndarray) -> np.ndarray:
    """uint8 (pages, bytes of a page) of uint32 (pages, words of a page), of one member; see `Step.read`."""
    if not isinstance(group.state, PagedState):
        return words.view(np.uint8)
    layout, at, found = page_layout(group.state), 0, []
    for part in layout.parts:
        found.append(part.canonical(np.ascontiguousarray(words[:, at : at + part.page_words])))
        at += part.page_words
    return np.concatenate(found, axis=1)


def stored(group: Group, data: np.ndarray) -> np.ndarray:
    """The other way."""
    if not isinstance(group.state, PagedState):
        return data
    layout, at, found = page_layout(group.state), 0, []
    for part, canonical in zip(layout.parts, group.state.parts, strict=True):
        found.append(part.stored(np.ascontiguousarray(data[:, at : at + canonical.page_bytes])))
        at += canonical.page_bytes
    return np.concatenate(found, axis=1)
