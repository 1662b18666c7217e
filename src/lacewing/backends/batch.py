"""What a step is asked to run: tokens of one or several sequences, and what is wanted of the logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lacewing.errors import OptionError
from lacewing.program.states import PAGE

_SHORT = 64  # elements, up to which lists are quicker than NumPy's calls: between two steps its code is in no cache
Array = np.ndarray  # of int32, but where it is said otherwise
Mask = Array | Callable[[], Array | None]


@dataclass(frozen=True)
class StepLimits:
    """What a step must be able to hold."""

    context: int  # positions of a sequence
    chunk: int = 512  # most tokens of one run
    rows: int = 1  # sequences that run at a time: rows of the block tables
    positions: int = 0  # that all rows have together; one whole context at least
    look_ahead: bool = False  # whether experts that are streamed may be read before they are chosen

    @property
    def pool(self) -> int:
        """Pages that all rows share where every earlier position can be seen."""
        return -(-max(self.context, self.positions) // PAGE)


@dataclass(frozen=True)
class Batch:
    """T tokens of one run, int32 (T,) each. The tokens of a row stand together, at consecutive positions.

    `outputs` (R,) are the tokens of which logits are wanted; R may be 0. A token id below zero, -1 - i, takes row i of
    `embeddings`, float32 (N, D), in place of an embedding of the vocabulary.
    `units_in`, `units_out` int32 (fixed groups, rows): the unit that holds the state of each row before the run (-1: zeros, as
    before the first position), and the one that it is written to, another one. Of rows that are not in the run nothing is read.
    `hidden` (H,) are the tokens whose hidden states are wanted (`Step.hidden`); None: of none.
    """

    tokens: Array
    rows: Array
    positions: Array
    outputs: Array
    units_in: Array | None = None
    units_out: Array | None = None
    embeddings: Array | None = None
    hidden: Array | None = None

    @staticmethod
    def of(ids: Array | list[int], position: int, outputs: Array | list[int], row: int = 0) -> Batch:
        """Tokens of one row from a position on, for a program without fixed states."""
        tokens = np.asarray(ids, np.int32)
        places = np.arange(position, position + len(tokens), dtype=np.int32)
        return Batch(tokens, np.full(len(tokens), row, np.int32), places, np.asarray(outputs, np.int32))

    def following(self, tokens: Array) -> Batch:
        """Of one token a row: the next ones, at the next positions; units change their roles."""
        ids, positions = tokens.astype(np.int32), self.positions + 1
        return replace(self, tokens=ids, positions=positions, units_in=self.units_out, units_out=self.units_in)

    @property
    def given(self) -> tuple[Array, Array] | None:
        """Which tokens come as embeddings, and their rows, float32 (G, D); None: all are ids."""
        if self.embeddings is None:
            return None
        which = np.flatnonzero(self.tokens < 0)
        return which, self.embeddings[-1 - self.tokens[which]]

    @cached_property
    def parts(self) -> list[tuple[int, int, int]]:
        """(row, first token, tokens) of each sequence in the run."""
        rows = self.rows
        if len(rows) <= _SHORT:
            listed = rows.tolist()
            firsts = [at for at, row in enumerate(listed) if not at or listed[at - 1] != row]
        else:
            firsts = [0, *(np.flatnonzero(np.diff(rows)) + 1).tolist()]
        return [(int(rows[first]), first, end - first) for first, end in zip(firsts, [*firsts[1:], len(rows)], strict=True)]


@dataclass(frozen=True)
class Wanted:
    """What is wanted of one row of logits: its `count` largest, among those that `mask` allows, with `bias` added.

    `mask` uint32 (ceil(V / 32),): bit id % 32 of word id // 32 is set for ids that are allowed; None: all are. A callable gives the
    mask, and is called when the device computes, so that the mask can be made meanwhile; it must not raise.
    """

    count: int = 1
    mask: Mask | None = None
    bias: Mapping[int, float] | None = None

    def settled(self) -> Wanted:
        """With a mask that is there."""
        return replace(self, mask=self.mask()) if callable(self.mask) else self

    @property
    def plain(self) -> bool:
        """Whether the raw logits decide."""
        return self.mask is None and not self.bias


@dataclass(frozen=True)
class Draw:
    """How a token is drawn from the `count` largest logits of a row: the likeliest that reach `top_p` together, those at least
    `min_p` times as likely as the likeliest, and of what is left one, by the weights at `temperature`, which is above zero."""

    count: int = 1
    top_p: float = 1.0
    min_p: float = 0.0
    temperature: float = 1.0


@dataclass(frozen=True)
class Candidates:
    """The largest logits of a row, largest first, the lower id first among equals, and what all of them sum to.

    `ids` int64 (N,); `logits` float32 (N,), with the bias that was wanted; `log_sum`: the natural logarithm of the sum of the
    exponentials of the whole raw row, before mask and bias.
    """

    ids: Array
    logits: Array
    log_sum: float


def check_batch(batch: Batch, vocab_size: int, limits: StepLimits, fixed: Sequence[int], width: int = 0) -> Batch:
    """The batch with its arrays as contiguous int32. `fixed`: how many units there are of each group of fixed states; `width`: of
    an embedding, 0 where the program takes none.

    Raises OptionError that names the first value out of range or of the wrong shape.
    """
    extra = 0 if batch.embeddings is None else len(batch.embeddings)
    if batch.embeddings is not None and (batch.embeddings.dtype != np.float32 or batch.embeddings.shape[1:] != (width,)):
        raise OptionError(f"embeddings must be float32 (N, {width}), not {batch.embeddings.dtype} {batch.embeddings.shape}")
    tokens = _integers("token", batch.tokens, vocab_size, -extra)
    count = len(tokens)
    if not 1 <= count <= limits.chunk:
        raise OptionError(f"a run takes 1 to {limits.chunk} tokens, not {count}")
    rows, positions = _integers("row", batch.rows, limits.rows), _integers("position", batch.positions, limits.context)
    if len(rows) != count or len(positions) != count:
        raise OptionError(f"{count} tokens came with {len(rows)} rows and {len(positions)} positions")
    outputs = _integers("output row", batch.outputs, count)
    if len(outputs) > limits.chunk:
        raise OptionError(f"a run gives up to {limits.chunk} rows of logits, not {len(outputs)}")
    hidden = None if batch.hidden is None else _integers("hidden row", batch.hidden, count)
    checked = Batch(tokens, rows, positions, outputs, embeddings=batch.embeddings, hidden=hidden)
    parts = checked.parts
    if len({row for row, _, _ in parts}) < len(parts):
        raise OptionError("tokens of a row must stand together")
    if len(parts) < count:
        following = (np.diff(positions) == 1) | (np.diff(rows) != 0)
        if not following.all():
            raise OptionError(f"position {int(positions[int(np.argmin(following)) + 1])} does not follow the one before it")
    if not fixed:
        return checked
    units = [_units(each, len(fixed), limits.rows) for each in (batch.units_in, batch.units_out)]
    ran = [row for row, _, _ in parts]
    if (units[0][:, ran] == units[1][:, ran]).any() or (units[1][:, ran] < 0).any():
        raise OptionError("a unit must be written to another place than it is read from")
    most = np.maximum(*units)[:, ran].max(axis=1)
    if (most >= fixed).any():
        raise OptionError(f"unit {int(most.max())} does not exist; the groups have {list(fixed)}")
    return replace(checked, units_in=units[0], units_out=units[1])


def _integers(what: str, values: Array, limit: int, least: int = 0) -> Array:
    found = np.asarray(values)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise OptionError(f"{what}s must be a list of integers")
    if found.size:
        ends = found.tolist() if found.size <= _SHORT else (int(found.min()), int(found.max()))
        if min(ends) < least or max(ends) >= limit:
            outside = found[(found < least) | (found >= limit)]
            raise OptionError(f"{what} {int(outside[0])} is out of range; there are {limit}")
    return np.ascontiguousarray(found, np.int32)


def _units(values: Array | None, fixed: int, rows: int) -> Array:
    if values is None or values.shape != (fixed, rows) or values.dtype.kind not in "iu":
        raise OptionError(f"a model with {fixed} groups of fixed states needs units of shape ({fixed}, {rows})")
    return np.ascontiguousarray(values, np.int32)
