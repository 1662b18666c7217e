"""The merges of a SentencePiece vocabulary, which GGUF files leave out: they follow from the pieces and their scores."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

from lacewing.errors import TokenizerError

MAX_CHARACTERS = 1 << 23  # of all pieces; Gemma's have 1.8 million
_U64 = np.uint64
# Odd, hence invertible modulo 2^64; drawn anew in each process, so that no file can be written to collide.
_BASE = _U64(int.from_bytes(os.urandom(8), "little") | 1)
_INVERSE = _U64(pow(int(_BASE), -1, 1 << 64))


class Merges(Sequence[tuple[str, str]]):
    """Pairs (left, right) of texts, made while they are read: as tuples, those of Gemma took 55 MB, of which Python kept a part."""

    def __init__(self, texts: list[str], left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]):
        self._texts, self._left, self._right = texts, np.ascontiguousarray(left), np.ascontiguousarray(right)

    def __len__(self) -> int:
        return len(self._left)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        text = self._texts.__getitem__
        return zip(map(text, self._left.data), map(text, self._right.data), strict=True)

    @overload
    def __getitem__(self, at: int) -> tuple[str, str]: ...
    @overload
    def __getitem__(self, at: slice) -> Merges: ...
    def __getitem__(self, at: int | slice) -> tuple[str, str] | Merges:
        if isinstance(at, slice):
            return Merges(self._texts, self._left[at], self._right[at])
        return self._texts[self._left[at]], self._texts[self._right[at]]


def derive_merges(pieces: list[str], ids: npt.NDArray[np.int64], scores: npt.NDArray[np.float64]) -> Merges:
    """Every (left, right) whose halves and whole are pieces, the first to apply first.

    `ids` are the rows of `pieces` that take part; `scores` are theirs, a higher one merges earlier. Ties go to the longer
    left half, then to the longer right one. All splits of all pieces are looked up at once through hashes of substrings,
    because Gemma's 262,144 pieces have 1.5 million splits.
    """
    texts = [pieces[i] for i in ids.tolist()]
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    starts = np.concatenate(([0], np.cumsum(lengths)))
    if starts[-1] > MAX_CHARACTERS:
        raise TokenizerError(f"the pieces of the vocabulary have {starts[-1]} characters; at most {MAX_CHARACTERS} are accepted")
    hashes = _SubstringHashes("".join(texts))
    table = _Table(hashes.of(starts[:-1], starts[1:]))
    splits = int(starts[-1]) - len(texts)
    if splits <= 0:
        return Merges([], np.empty(0, np.int64), np.empty(0, np.int64))
    # One entry a split: `owner` is the piece, `cut` the place in the joined text, strictly inside the piece.
    inner = np.ones(int(starts[-1]), bool)
    inner[starts[:-1][lengths > 0]] = False
    cut = np.flatnonzero(inner)
    owner = np.repeat(np.arange(len(texts)), np.maximum(lengths - 1, 0))
    left = table.find(hashes.of(starts[owner], cut))
    keep = left >= 0
    owner, cut, left = owner[keep], cut[keep], left[keep]
    right = table.find(hashes.of(cut, starts[owner + 1]))
    keep = right >= 0
    owner, left, right = owner[keep], left[keep], right[keep]
    order = _order(scores, owner, lengths[left], lengths[right], ids[left], ids[right])
    return Merges(texts, left[order], right[order])


def _order(scores: npt.NDArray[np.float64], owner: npt.NDArray[np.int64], *ties: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The order of the splits: by score, then as `derive_merges` says. `owner` ascends, and within one the left half grows."""
    ranked = np.argsort(-scores, kind="stable")
    if (np.diff(scores[ranked]) == 0).any():
        left, right, left_id, right_id = ties
        return np.lexsort((right_id, left_id, -right, -left, -scores[owner]))
    # Scores differ, as they usually do: whole pieces are put in order, each with its splits backwards.
    count = np.bincount(owner, minlength=len(scores))
    last = np.cumsum(count)[ranked] - 1
    count = count[ranked]
    first = np.cumsum(count) - count
    return np.repeat(last + first, count) - np.arange(len(owner))


class _SubstringHashes:
    """Hashes of all substrings of a text, each in constant time: a polynomial modulo 2^64 over scrambled code points."""

    def __init__(self, text: str):
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
        with np.errstate(over="ignore"):
            powers = np.full(len(points) + 1, _BASE)
            powers[0] = 1
            self._inverse = np.full(len(points) + 1, _INVERSE)
            self._inverse[0] = 1
            np.cumprod(powers, out=powers)
            np.cumprod(self._inverse, out=self._inverse)
            self._sums = np.zeros(len(points) + 1, np.uint64)
            np.cumsum(_scramble(points + _U64(1)) * powers[:-1], out=self._sums[1:])

    def of(self, start: npt.NDArray[np.int64], stop: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """Hashes of text[start:stop], element by element."""
        with np.errstate(over="ignore"):
            return _scramble((self._sums[stop] - self._sums[start]) * self._inverse[start])


class _Table:
    """Finds a hash among the pieces' hashes: buckets by the high bits, searched one place at a time for all queries at once."""

    def __init__(self, hashes: npt.NDArray[np.uint64]):
        self._shift = _U64(64 - max(4, len(hashes).bit_length() + 2))
        slots = (hashes >> self._shift).astype(np.int64)
        self._order = np.argsort(slots, kind="stable")
        self._hashes = hashes[self._order]
        self._count = np.bincount(slots, minlength=1 << int(_U64(64) - self._shift))
        self._first = np.cumsum(self._count) - self._count

    def find(self, hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Rows of the hashes, -1 where there is none."""
        found = np.full(len(hashes), -1, np.int64)
        slots = (hashes >> self._shift).astype(np.int64)
        place, left = self._first[slots], self._count[slots]
        waiting = np.flatnonzero(left > 0)
        while len(waiting):
            here = place[waiting]
            same = self._hashes[here] == hashes[waiting]
            found[waiting[same]] = self._order[here[same]]
            place[waiting] += 1
            left[waiting] -= 1
            waiting = waiting[~same & (left[waiting] > 0)]
        return found


def _scramble(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Mixes the bits of 64-bit values (the finaliser of splitmix64), so that the high bits are good for buckets."""
    x = (x ^ (x >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> _U64(27))) * _U64(0x94D049BB133111EB)
    return x ^ (x >> _U64(31))
