"""Streamed steps without an engine, for the tests beside this file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lacewing.backends import init_backend
from lacewing.backends.batch import StepLimits
from lacewing.backends.step import Step
from lacewing.formats import open_checkpoint
from lacewing.models import open_model
from lacewing.weights import WeightStore
from lacewing.weights.experts import SlotCount, stacks_of
from lacewing.weights.experts.cache import StreamOptions
from tests.paged import with_pages


def opened(
    path: Path,
    slots: int | tuple[int, int] | None = None,
    *,
    threads: int = 2,
    rows: int = 1,
    residency: str = "streamed",
    look_ahead: bool = False,
    history: Path | None = None,
    packs: Sequence[Path] = (),
    by_row: bool = False,
) -> tuple[Step, WeightStore]:
    """`slots`: of each layer, at least what a token needs, with two that are shared, or both numbers; None: not streamed.

    Eager weights are in tile order, and so are the experts of `packs`, which must be of these. `by_row`: streaming
    leaves the embedding on the disk, however small it is.
    """
    spec = open_model(open_checkpoint(path))
    store, backend = WeightStore(spec.tensors), init_backend("cpu", threads)
    store.arrange(backend.tile_orders(spec.program, store))
    if slots is not None:
        mixed = stacks_of(spec.program)
        least = max(active for _, active in mixed)
        count = SlotCount(*slots) if isinstance(slots, tuple) else SlotCount(max(slots, least), 2)
        on_disk = backend.row_tables(spec.program, store) if by_row else frozenset()
        store.slot(mixed, count, packs, StreamOptions(history, look_ahead), by_row=on_disk)
        store.set_residency(residency)
        assert not packs or (store.experts is not None and store.experts.pack is not None), store.notices
    elif residency == "eager":
        store.set_residency(residency)
    limits = StepLimits(spec.context, rows=rows, look_ahead=look_ahead)
    return with_pages(backend.compile(spec.program, store, limits)), store
