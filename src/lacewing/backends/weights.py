"""What a backend sees of weights: before they are read (`TensorSpec`), when they are there (`WeightView`), some experts of all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lacewing.backends.fetching import Fetching
from lacewing.errors import BackendError
from lacewing.quants.base import Quant


@dataclass(frozen=True)
class TileOrder:
    """Another order of a quantised weight in memory: tile after tile of `rows` rows; in a tile group after group of `columns`
    columns, the last one of what is left; in a group row after row.

    With `pieces`, bytes that make up a block: in a tile block after block, in a block piece after piece, and each piece row after
    row. A weight of experts has whole tiles of each.
    """

    rows: int
    columns: int
    pieces: tuple[int, ...] = ()


class TensorSpec(Protocol):
    """What is known of a weight before it is read."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def quant(self) -> Quant: ...

    @property
    def nbytes(self) -> int: ...

    @property
    def scales(self) -> object: ...

    @property
    def scale_block(self) -> tuple[int, int]: ...


class ExpertSlots(Protocol):
    """The experts of a mixture that are streamed: some are in slots of RAM, the others come there when they are chosen."""

    clock: np.ndarray
    """int64 (1,): runs that have begun."""

    chosen: np.ndarray
    """int64 (1,), for whoever computes to add to: experts that runs have chosen, each once a run, missing or not."""

    @property
    def addresses(self) -> Mapping[str, np.ndarray]:
        """Of each stack of the mixture int64 (E,): where the rows of an expert begin; 0: it is not in RAM."""
        ...

    @property
    def tiled(self) -> frozenset[str]:
        """The stacks whose experts are in the order that the backend asked for (`Backend.tile_orders`); the others are in rows."""
        ...

    @property
    def fetching(self) -> Fetching | None:
        """For whoever can have experts read during a run; None: they come through `batches` alone."""
        ...

    @property
    def counts(self) -> np.ndarray:
        """int64 (E, 2), for whoever computes to write: tokens that have used an expert, to be added to, and the run of its last
        use."""
        ...

    def begin_run(self) -> int:
        """To be told by whoever computes before each run, once for all mixtures. If the number is another than the time before,
        experts have come to slots in between."""
        ...

    def end_run(self, tokens: int) -> None:
        """To be told of a run of so many tokens that has ended well."""
        ...

    @property
    def looks_ahead(self) -> bool:
        """Whether guesses are wanted in this run, for `expect`."""
        ...

    def cannot_guess(self) -> None:
        """To be told by whoever computes, once for all mixtures, if there will be no guesses."""
        ...

    def batches(
        self, chosen: np.ndarray, few: bool, check: Callable[[], None], meanwhile: Callable[[], None] | None = None
    ) -> Iterator[np.ndarray]:
        """The chosen experts, int64, some at a time, when they are in RAM; until the next ones are asked for. `few`: of a few
        tokens. `check` is called now and then while it waits for the disk, and may raise; `meanwhile` once, when the first reads
        are under way."""
        ...

    def expect(self, experts: Sequence[int], counted: bool = False) -> None:
        """Begin to read those of these experts that are missing, in their order, while there is room: this mixture runs next, and
        is likely to choose them. `counted`: as guesses, in the statistics."""
        ...


class RowTable(Protocol):
    """A matrix on the disk whose rows are read when tokens need them."""

    def read(self, rows: np.ndarray, out: np.ndarray, check: Callable[[], None]) -> None:
        """The blocks of these rows (N,) to `out`, uint8 (N, bytes of a row). `check` is called now and then while it waits for the
        disk, and may raise. Raises ModelFormatError for a file that cannot be read."""
        ...


class WeightView(Protocol):
    """What a backend sees of a weight (`weights.store.Weight` is one)."""

    name: str
    shape: tuple[int, ...]
    quant: Quant

    @property
    def data(self) -> np.ndarray:
        """uint8 (nbytes,): the blocks, row after row; a view of mapped or owned memory. Valid until the residency changes."""
        ...

    @property
    def parts(self) -> list[np.ndarray]:
        """uint8, one array, or one for each index of the first axis: stacked experts may lie apart in their files."""
        ...

    @property
    def tiled(self) -> np.ndarray | None:
        """uint8 (nbytes,): all blocks in the order that the backend asked for (`Backend.tile_orders`); None: they are not in memory
        so. `data` and `parts` are then copies.
        """
        ...

    @property
    def slots(self) -> ExpertSlots | None:
        """Of a stack of experts that is streamed; None: it is not."""
        ...

    @property
    def row_table(self) -> RowTable | None:
        """Of a streamed model's matrix that is read by rows (`Backend.row_tables`) and not in RAM; None: `data` is to be used."""
        ...

    @property
    def scales(self) -> WeightView | None:
        """Factors, one for each block of `scale_block` rows and columns, that the values are multiplied by; None: all 1."""
        ...

    @property
    def scale_block(self) -> tuple[int, int]: ...


class ResidentExperts:
    """Some experts of a weight (E, ...), in their order; a `WeightView`. It has no factors of blocks."""

    scales: WeightView | None = None
    scale_block = (1, 1)
    tiled: np.ndarray | None = None
    slots: ExpertSlots | None = None
    row_table: RowTable | None = None

    def __init__(self, name: str, weight: WeightView, experts: Sequence[int]):
        if weight.scales is not None:
            raise BackendError(f"experts of {weight.name} cannot be held apart from their factors")
        self.name, self._weight, self._experts = name, weight, tuple(experts)
        self.shape: tuple[int, ...] = (len(self._experts), *weight.shape[1:])
        self.quant: Quant = weight.quant

    @property
    def parts(self) -> list[np.ndarray]:
        all_of_them = members(self._weight)
        return [all_of_them[expert] for expert in self._experts]

    @property
    def data(self) -> np.ndarray:
        return np.concatenate(self.parts)


@dataclass
class ExpertRows:
    """One expert (1, ...) whose rows are at hand; a `WeightView`. It has no factors of blocks."""

    name: str
    shape: tuple[int, ...]
    quant: Quant
    data: np.ndarray
    scales: WeightView | None = None
    scale_block: tuple[int, int] = (1, 1)
    tiled: np.ndarray | None = None
    slots: ExpertSlots | None = None
    row_table: RowTable | None = None

    @property
    def parts(self) -> list[np.ndarray]:
        return [self.data]


def rows_of(weight: WeightView, index: slice | np.ndarray) -> np.ndarray:
    """Some rows of a matrix, float32 (rows, columns)."""
    values = weight.quant.dequantise(weight.data.reshape(weight.shape[0], -1)[index])
    scales = weight.scales
    if scales is None:
        return values
    factors, (rows, columns) = scales.quant.dequantise(scales.data).reshape(scales.shape), weight.scale_block
    factors = factors[np.arange(weight.shape[0])[index] // rows].repeat(columns, axis=-1)[..., : values.shape[-1]]
    return np.asarray(values * factors)


def members(weight: WeightView) -> list[np.ndarray]:
    """uint8: the bytes of what stands at each index of the first axis, such as an expert."""
    parts = weight.parts
    if len(parts) == weight.shape[0]:
        return [part.reshape(-1) for part in parts]
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return list(whole.reshape(weight.shape[0], -1))


@dataclass(frozen=True)
class CacheStatistics:
    """Of the layers that share their experts: how many of how many are resident in each, and which share of what was chosen since
    the last rebalancing was among them, None: nothing was chosen."""

    layers: int
    resident: int
    experts: int
    hit_rate: float | None
    problem: str = ""  # why the last rebalancing failed

    def __str__(self) -> str:
        each = "the layer" if self.layers == 1 else f"each of {self.layers} layers"
        told = "" if self.hit_rate is None else f", hit rate {self.hit_rate:.0%}"
        problem = f"; the last swap-in failed, and nothing was changed: {self.problem}" if self.problem else ""
        return f"on the GPU: {self.resident} of {self.experts} experts of {each}{told}{problem}"
