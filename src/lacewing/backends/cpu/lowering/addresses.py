"""Where weights are, as arguments: looked up again at every bind, for residency moves them and their order."""

from __future__ import annotations

import numpy as np

from lacewing.backends.cpu.arguments import IN_PIECES, WHOLE_BLOCKS
from lacewing.backends.cpu.isa import host_isa
from lacewing.backends.cpu.lowering.context import Argument, Lowering, value_of
from lacewing.backends.cpu.memory import aligned
from lacewing.backends.cpu.quants import TILES, TileKernels
from lacewing.backends.cpu.rows import GatheredRows
from lacewing.backends.weights import WeightView
from lacewing.errors import BackendError


def _is_tiled(weight: WeightView) -> bool:
    slots = weight.slots
    return weight.tiled is not None if slots is None else weight.name in slots.tiled


def _refuse_tiles(weight: WeightView) -> None:
    if _is_tiled(weight):
        raise BackendError(
            f"weight {weight.name} is in tile order, which its kernel cannot read; use `residency='lazy'`, and report this"
        )


def in_memory(weight: WeightView) -> list[np.ndarray]:
    """The bytes that kernels read: all of them in tile order, or else the weight's parts."""
    tiled = weight.tiled
    return weight.parts if tiled is None else [tiled]


def of_rows(weight: WeightView, gathered: GatheredRows | None = None) -> Argument:
    """Of rows one after the other; of those that are `gathered`, if the weight is not in RAM. Raises BackendError at a bind for a
    weight in tile order."""

    def address() -> int:
        if gathered is not None and weight.row_table is not None:
            return gathered.address
        _refuse_tiles(weight)
        return int(weight.data.ctypes.data)

    return address


def of_either_order(weight: WeightView, gathered: GatheredRows | None = None) -> dict[str, Argument]:
    """The arguments `weight` and `tiled`, for kernels that take tile order as well; `gathered`: as for `of_rows`."""

    def address() -> int:
        if gathered is not None and weight.row_table is not None:
            return gathered.address
        tiled = weight.tiled
        return int((weight.data if tiled is None else tiled).ctypes.data)

    return {"weight": address, "tiled": tile_order(weight)}


def tile_order(weight: WeightView) -> Argument:
    """Which tile order the weight is in now; 0: rows."""
    return lambda: order_of(weight)


def order_of(weight: WeightView) -> int:
    """As `tile_order`, at this moment."""
    if not _is_tiled(weight):
        return 0
    return IN_PIECES if TILES[weight.quant.name].pieces else WHOLE_BLOCKS


def unpacker(low: Lowering, weight: WeightView, kinds: TileKernels) -> Argument:
    """The kernel that unpacks blocks of the order that the weight is in."""
    rows, tiled = low.kernel(kinds.unpack), low.kernel(kinds.unpack_tiled)
    return lambda: value_of(tiled if order_of(weight) == IN_PIECES else rows)


def tile_kernels(low: Lowering, weight: WeightView, kinds: TileKernels) -> dict[str, Argument]:
    """`unpack`, and `direct` where there is a kernel for few tokens of the order that the weight is in; `direct_blocks`."""
    blocks = max(1, 8 * host_isa().lanes // weight.quant.block_elements)
    of_rows: Argument = low.kernel(kinds.gemv) if kinds.gemv and host_isa().lanes >= 8 else 0
    of_tiles: Argument = low.kernel(kinds.tiled) if kinds.tiled else 0

    def direct() -> int:
        order = order_of(weight)
        return 0 if order == WHOLE_BLOCKS else value_of(of_tiles if order == IN_PIECES else of_rows)

    return {"unpack": unpacker(low, weight, kinds), "direct": direct, "direct_blocks": blocks}


def of_experts(low: Lowering, name: str, skipped: int, *, tiled: bool = False) -> Argument:
    """A table of int64: where the rows of each expert begin, `skipped` bytes into it. Filled again at every bind.

    `tiled`: for kernels that take tile order as well; `skipped` is whole tiles then.
    """
    weight = low.weights[name]
    table = aligned(8 * weight.shape[0], np.int64)
    low.memory.kept[f"addresses of {name} + {skipped}"] = table
    if skipped:
        low.expert_tables.setdefault(name, []).append((skipped, table))

    def fill() -> int:
        if not tiled:
            _refuse_tiles(weight)
        if weight.slots is not None and not skipped:
            return int(weight.slots.addresses[name].ctypes.data)
        if weight.slots is not None:
            put_addresses(table, weight.slots.addresses[name], skipped)
            return int(table.ctypes.data)
        parts = in_memory(weight)
        if len(parts) == 1:
            step = parts[0].nbytes // len(table)
            table[:] = int(parts[0].ctypes.data) + skipped + step * np.arange(len(table))
        else:
            table[:] = [int(part.ctypes.data) + skipped for part in parts]
        return int(table.ctypes.data)

    return fill


def put_addresses(table: np.ndarray, addresses: np.ndarray, skipped: int) -> None:
    """Into a table of `of_experts` that skips something, of those experts of a streamed stack that are in RAM; 0 of the others."""
    np.copyto(table, np.where(addresses != 0, addresses + skipped, 0))
