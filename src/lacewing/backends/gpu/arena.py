"""Where activations stand: one buffer on the device, with a place for each of the program's buffers.

Places are counted in words of 32 bits. Row t of a buffer begins at `base + t * stride`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lacewing.backends.gpu.layouts import GROUP
from lacewing.errors import OutOfMemoryError
from lacewing.options import format_bytes
from lacewing.program.ops import Buffer, View

HALVED = 64  # columns that matrix units take together
_ALIGNED = 64  # words: rows begin where vec4 loads and whole cache lines do


@dataclass(frozen=True)
class Place:
    """Row t, column c stands at word `base + t * stride + c`."""

    base: int
    stride: int


@dataclass(frozen=True)
class Quantised:
    """Activations as q8: for each group of 32, eight words of int8 and, apart, two words of scales.

    The scales are one float32, and the sums of the first and the last 16 values (two int16).
    """

    values: Place
    scales: Place


@dataclass(frozen=True)
class Halved:
    """Activations as float16, two a word, zeros behind them up to a multiple of HALVED; and a word of scale, float32, a token."""

    values: Place
    scales: Place
    words: int  # of values, a token


class Arena:
    """Gives out places; `words` is the size that the buffer must have."""

    def __init__(self, chunk: int, most_words: int):
        self.chunk, self.words, self._most = chunk, 0, most_words
        self._places: dict[str, Place] = {}
        self._quantised: dict[str, Quantised] = {}
        self._halved: dict[View, Halved] = {}

    def place(self, width: int) -> Place:
        """A new place of `chunk` rows. Raises OutOfMemoryError where the arena would outgrow a binding."""
        stride = -(-width // _ALIGNED) * _ALIGNED
        made = Place(self.words, stride)
        self.words += stride * self.chunk
        if self.words > self._most:
            raise OutOfMemoryError(
                f"activations of {self.chunk} tokens need more than the {format_bytes(4 * self._most)} that this GPU binds; "
                "use `backend='cpu'`"
            )
        return made

    def add(self, buffers: Iterable[Buffer]) -> None:
        for buffer in buffers:
            if buffer.name not in self._places:
                self._places[buffer.name] = self.place(buffer.width)

    def view(self, view: View) -> Place:
        whole = self._places[view.buffer.name]
        return Place(whole.base + view.start, whole.stride)

    def quantised(self, view: View) -> Quantised:
        """Where the q8 form of a view stands, whose start and width are whole groups."""
        name = view.buffer.name
        if name not in self._quantised:
            groups = -(-view.buffer.width // GROUP)
            self._quantised[name] = Quantised(self.place(groups * 8), self.place(groups * 2))
        whole, first = self._quantised[name], view.start // GROUP
        return Quantised(
            Place(whole.values.base + first * 8, whole.values.stride), Place(whole.scales.base + first * 2, whole.scales.stride)
        )

    def halved(self, view: View) -> Halved:
        """Where the float16 form of a view stands."""
        if view not in self._halved:
            words = -(-view.width // HALVED) * HALVED // 2
            self._halved[view] = Halved(self.place(words), self.place(1), words)
        return self._halved[view]
