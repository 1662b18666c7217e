"""The choice of the next tokens on the device: the largest logits, one of them drawn; and their way to the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from lacewing.backends.batch import Candidates, Draw, Wanted
from lacewing.backends.cuda.arguments import NULL, STEP, Addresses, Argument, Packed, blocks
from lacewing.backends.cuda.device.device import Device, Function, Pinned
from lacewing.backends.cuda.lowering.compiler import Compiler
from lacewing.backends.cuda.lowering.launches import Plan
from lacewing.backends.gpu.candidates import NOTHING, WANTED, broken_logits, candidates
from lacewing.backends.gpu.draws import WORDS, draw_options, put_numbers
from lacewing.backends.gpu.wishes import MOST_BIASES, WishBuffer, wish_bytes

PART = 2048  # logits of a block: of `argmax.cu`, and 8 for each thread of `best_parts.cu`
AHEAD = 2  # runs under way
Found = TypeVar("Found", covariant=True)


class Choice(Protocol[Found]):
    """What chooses the next tokens of a run on the device, and brings what it found to one of `AHEAD` + 1 places of a ring."""

    name: str

    def plan(self, rows: int) -> Plan: ...

    def before(self, number: int) -> None:
        """What the host brings for the token after `number` others."""

    def fetch(self, rows: int, ring: int) -> None: ...

    def take(self, rows: int, ring: int) -> Found: ...


class Kernels:
    """Kernels with arguments, one after another; blocks along the first axis, and a row of logits along the second."""

    def __init__(self, device: Device, addresses: Addresses):
        self._device, self._addresses = device, addresses
        self._made: list[tuple[Function, int, Packed]] = []

    def add(self, name: str, macros: dict[str, object], arguments: Sequence[Argument], across: int = 0) -> None:
        """`across` 0: a block a row."""
        packed = Packed([self._addresses.packed(each) for each in arguments])
        self._made.append((self._device.function(name, macros), across, packed))

    def plan(self, rows: int) -> Plan:
        return [
            (function, (across, rows, 1) if across else (rows, 1, 1), packed.address, 0) for function, across, packed in self._made
        ]


class DeviceArgmax:
    """The largest logit of each row, which becomes the row's next token."""

    name = "argmax"

    def __init__(self, compiler: Compiler, addresses: Addresses):
        device, vocabulary, fixed = compiler.device, compiler.program.vocab_size, compiler.inputs.fixed
        parts, rows = blocks(vocabulary, PART), compiler.logit_rows
        best = compiler.own(8 * parts * rows, "the best of the parts")
        self._kernels = Kernels(device, addresses)
        self._kernels.add("argmax", {}, [compiler.logits, best, PART, vocabulary], parts)
        self._kernels.add("feed_back", {}, [STEP, best, parts, vocabulary, fixed])
        self._chosen = compiler.step_buffer.address + 4 * compiler.inputs.chosen
        self._ring = [device.pinned(4 * compiler.limits.rows) for _ in range(AHEAD + 1)]

    def plan(self, rows: int) -> Plan:
        return self._kernels.plan(rows)

    def before(self, number: int) -> None:
        """Nothing."""

    def fetch(self, rows: int, ring: int) -> None:
        self._ring[ring].fetch(self._chosen, 4 * rows)
        self._ring[ring].mark()

    def take(self, rows: int, ring: int) -> np.ndarray:
        """Ids, int64 (rows,). Raises NumericError for broken logits."""
        chosen = self._ring[ring].wait(4 * rows).view(np.uint32).astype(np.int64)
        if (chosen >= NOTHING).any():
            raise broken_logits()
        return chosen

    def close(self) -> None:
        for place in self._ring:
            place.close()


def argmax_bytes(vocab_size: int, rows: int) -> int:
    """What it takes on the device."""
    return 8 * blocks(vocab_size, PART) * rows


class DeviceTopK:
    """The WANTED largest logits of each row, and their way to the host. With masks and biases another kernel looks through the
    logits, and masks may be made while these are computed."""

    def __init__(self, compiler: Compiler, addresses: Addresses):
        device, vocabulary, rows = compiler.device, compiler.program.vocab_size, compiler.logit_rows
        self._parts = parts = blocks(vocabulary, PART)
        best = compiler.own(8 * parts * WANTED * rows, "the largest logits of the parts")
        self._totals = compiler.own(8 * parts * rows, "the sums of the parts")
        room = compiler.own(wish_bytes(vocabulary, rows), "masks and biases")
        self.wishes = WishBuffer(device, room.buffer, room.offset, vocabulary, rows)
        macros: dict[str, object] = {"WANTED": WANTED, "EACH": PART // 256}
        self._plain, self._wishing = Kernels(device, addresses), Kernels(device, addresses)
        found: list[Argument] = [compiler.logits, best, self._totals]
        self._plain.add("best_parts", macros, [*found, NULL, vocabulary, 0, 0], parts)
        self._wishing.add("best_parts", macros, [*found, room, vocabulary, self.wishes.stride, MOST_BIASES], parts)
        self._rest = Kernels(device, addresses)
        count, source = parts * WANTED, best
        while True:
            groups = blocks(count, PART)
            target = compiler.own(8 * groups * WANTED * rows, "the largest logits")
            self._rest.add("best_all", macros, [source, target, count], groups)
            count, source = groups * WANTED, target
            if groups == 1:
                break
        self.chosen = source
        self._found = device.pinned(self.row_bytes * rows)

    @property
    def row_bytes(self) -> int:
        """What goes to the host of a row."""
        return 8 * (WANTED + self._parts)

    def plan(self, rows: int, plain: bool = True) -> Plan:
        """The choice among so many rows of logits; `plain`: without masks and biases."""
        return [*(self._plain if plain else self._wishing).plan(rows), *self._rest.plan(rows)]

    def fetch(self, place: Pinned, rows: int) -> None:
        """Have what was found brought to the host, `row_bytes` a row."""
        place.fetch(self.chosen.buffer.address, 8 * WANTED * rows)
        place.fetch(self._totals.buffer.address, 8 * self._parts * rows, 8 * WANTED * rows)

    def begin(self, rows: int) -> None:
        """Behind a plan."""
        self.fetch(self._found, rows)
        self._found.mark()

    def take(self, wanted: Sequence[Wanted]) -> list[Candidates]:
        """Raises NumericError for broken logits, OptionError for a mask that allows nothing or has another size."""
        return candidates(self._found.wait(self.row_bytes * len(wanted)).view(np.uint32).copy(), wanted)

    def close(self) -> None:
        self._found.close()


def top_k_bytes(vocab_size: int, rows: int) -> int:
    """What it takes on the device."""
    count = blocks(vocab_size, PART) * WANTED
    total = count
    while True:
        groups = blocks(count, PART)
        count = groups * WANTED
        total += count
        if groups == 1:
            return 8 * rows * (total + blocks(vocab_size, PART)) + wish_bytes(vocab_size, rows)


class DeviceDraw:
    """Tokens drawn on the device as a sampler will: the next run takes them, while the host looks whether it draws the same."""

    def __init__(self, compiler: Compiler, addresses: Addresses, top_k: DeviceTopK):
        self.device, self.top_k = compiler.device, top_k
        self.rows = min(compiler.logit_rows, compiler.limits.rows)
        self.options = compiler.own(4 * WORDS * self.rows, "how tokens are drawn")
        self.kernels = Kernels(self.device, addresses)
        vocabulary, fixed = compiler.program.vocab_size, compiler.inputs.fixed
        self.kernels.add("draw", {}, [STEP, top_k.chosen, self.options, vocabulary, fixed])
        self.chosen = compiler.step_buffer.address + 4 * compiler.inputs.chosen
        self.ring = [self.device.pinned((top_k.row_bytes + 4) * self.rows) for _ in range(AHEAD + 1)]

    def begin(self, draws: Sequence[Draw], numbers: Callable[[int], Sequence[float]]) -> Drawing:
        """See `Step.drawn`."""
        return Drawing(self, draws, numbers)

    def close(self) -> None:
        for place in self.ring:
            place.close()


class Drawing:
    """Tokens of some rows, one after another, drawn in one way each."""

    name = "draw"

    def __init__(self, on: DeviceDraw, draws: Sequence[Draw], numbers: Callable[[int], Sequence[float]]):
        self._on, self._numbers, self._options = on, numbers, draw_options(draws)
        self._wanted = [Wanted(each.count) for each in draws]

    def plan(self, rows: int) -> Plan:
        return [*self._on.top_k.plan(rows), *self._on.kernels.plan(rows)]

    def before(self, number: int) -> None:
        put_numbers(self._options, self._numbers(number))
        self._on.device.write(self._on.options.buffer, self._on.options.offset, self._options)

    def fetch(self, rows: int, ring: int) -> None:
        place = self._on.ring[ring]
        place.fetch(self._on.chosen, 4 * rows, self._on.top_k.row_bytes * rows)
        self._on.top_k.fetch(place, rows)
        place.mark()

    def take(self, rows: int, ring: int) -> tuple[list[Candidates], np.ndarray]:
        """The candidates and the drawn ids, int64 (rows,). Raises NumericError for broken logits."""
        words = self._on.ring[ring].wait((self._on.top_k.row_bytes + 4) * rows).view(np.uint32).copy()
        return candidates(words[:-rows], self._wanted), words[-rows:].astype(np.int64)
