"""The slots of all mixtures of a model: what the layers have, what they share, and what is kept of their use."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lacewing.errors import Cancelled
from lacewing.formats.checkpoint import Identity
from lacewing.options import counted, format_bytes
from lacewing.weights.experts.history import History, model_key
from lacewing.weights.experts.layer import LayerExperts
from lacewing.weights.experts.pack import Pack
from lacewing.weights.experts.probe import tune
from lacewing.weights.experts.reading import ExpertReader
from lacewing.weights.experts.rows import RowTable
from lacewing.weights.experts.slots import SlotPool, StreamStatistics
from lacewing.weights.experts.source import PAGE, FileLayer, LayerSource, SlotCount, Stack, Stacks
from lacewing.weights.experts.trial import Trial
from lacewing.weights.experts.warm import WarmStart
from lacewing.weights.memory import allocate

_TOUCHED = 2**28  # bytes of slots that are touched between two looks at whether loading was cancelled
_KEPT_EVERY = 2048  # runs between two times that the history is written
_WORTH = 8  # runs that are worth keeping


class StreamOptions(NamedTuple):
    """`history`: the folder where the usage of experts is kept, which the slots are filled by; None: nowhere. `look_ahead`: whether
    whoever computes may guess what comes next, as long as that pays."""

    history: Path | None = None
    look_ahead: bool = False


DEFAULT = StreamOptions()


class ExpertCache:
    """Slots for the experts of a model: of each layer its own, and some that the layers share, one layer at a time.

    Memory is taken once and overwritten in place: giving it back and forth would cost more than the policy gains.
    Experts are read from a `pack`, if there is one, else from the model's `files`; how, is found out at the beginning (`disk`).
    `by_row`: matrices that stay in the files; their rows are read by the same readers.
    Raises OutOfMemoryError; ModelFormatError for a file that cannot be read; Cancelled, if `cancelled` says so meanwhile.
    """

    def __init__(
        self,
        weights: Mapping[str, Stack],
        layers: Sequence[tuple[Stacks, int]],
        files: Mapping[Path, Identity],
        slots: SlotCount,
        cancelled: Callable[[], bool] | None = None,
        pack: Pack | None = None,
        options: StreamOptions = DEFAULT,
        by_row: Collection[str] = (),
    ):
        self.slots = slots
        self.pack = pack
        self._history: History | None = None
        if options.history is not None:
            self._history = History(options.history, model_key(weights, [stacks for stacks, _ in layers], files))
        files = files if pack is None else {**files, pack.path: pack.identity}
        sources: Sequence[LayerSource] = (
            pack.layers if pack is not None else [FileLayer({name: weights[name] for name in stacks}) for stacks, _ in layers]
        )
        sizes = [source.slot_bytes for source in sources]
        largest = max(sizes, default=0)
        self.nbytes = slots.layer * sum(sizes) + slots.shared * largest
        memory, at = allocate(self.nbytes, "the slots of experts"), slots.shared * largest
        for first in range(0, self.nbytes, _TOUCHED):  # so that the system counts it as used from now on, as the plan does
            if cancelled is not None and cancelled():
                raise Cancelled("making room for experts was cancelled")
            memory[first : first + _TOUCHED : PAGE] = 0
        shared = [memory[index * largest :][:largest] for index in range(slots.shared)]
        self.disk = tune(sources, files, memory, cancelled)
        self.reader = ExpertReader(files, self.disk.way)
        self.row_tables = {name: RowTable(self.reader, weights[name].ranges[0], weights[name].shape[0]) for name in by_row}
        self.pool = SlotPool(self.reader, shared, next(iter(files), Path("the model")))
        self.pool.files = self.reader.hold()
        if self.pool.files is not None:
            self.pool.files.memory = memory
        self.pool.trial = Trial() if options.look_ahead else None
        self.layers: list[LayerExperts] = []
        self._layer_of: dict[str, LayerExperts] = {}
        for (stacks, active), source, size in zip(layers, sources, sizes, strict=True):
            own = [memory[at + index * size :][:size] for index in range(slots.layer)]
            at += slots.layer * size
            self.layers.append(LayerExperts(self.pool, source, own, active))
            self._layer_of |= dict.fromkeys(stacks, self.layers[-1])
        for layer, following in zip(self.layers, self.layers[1:], strict=False):
            layer.following = following
        self.warm_start: WarmStart | None = None
        self.pool.on_run = self._on_run
        known = None if self._history is None else self._history.read([layer.experts for layer in self.layers])
        if known is not None:
            for layer, uses in zip(self.layers, known, strict=True):
                layer.usage.begin_with(uses)
            self.warm_start = WarmStart(self.layers, slots.layer, self.statistics)

    @property
    def statistics(self) -> StreamStatistics:
        return self.pool.statistics

    @property
    def history_problem(self) -> str:
        """Why the usage history was ignored; empty: it was not."""
        return "" if self._history is None else self._history.problem

    def layer_of(self, name: str) -> LayerExperts | None:
        """That a stack belongs to; None: it is not streamed."""
        return self._layer_of.get(name)

    def begin_warm_start(self) -> None:
        """Fill the slots as of the usage history, in the background; the first run ends it."""
        if self.warm_start is not None and not int(self.pool.clock[0]):
            self.warm_start.begin()

    def _on_run(self, clock: int) -> None:
        if clock == 1 and self.warm_start is not None:
            self.warm_start.end()
            self.pool.version += 1
        if clock % _KEPT_EVERY == 0:
            self._keep_history(clock)

    def _keep_history(self, clock: int) -> None:
        if self._history is None or clock < _WORTH:
            return
        for layer in self.layers:
            layer.usage.look(clock)
        self._history.write([layer.usage.history for layer in self.layers])

    def __str__(self) -> str:
        found, experts = self.statistics, max((layer.experts for layer in self.layers), default=0)
        kind = "streamed" if self.pack is None else "streamed from a pack"
        told = f"{kind}: of each of {len(self.layers)} layers {min(self.slots.layer, experts)} of {experts} experts are in RAM"
        if self.warm_start is not None:
            so_far = "so far" if self.warm_start.running else "before the first prompt"
            told += f"; {found.warmed} experts ({format_bytes(found.warmed_bytes)}) came from its usage history {so_far}"
        if found.hit_rate is not None:
            told += f"; hit rate {found.hit_rate:.0%}{self._tiers}; {format_bytes(found.nbytes)} were read in "
            told += f"{counted(found.reads, 'read')}, and runs waited {found.waited:.1f} s for it"
        if self.pool.trial is not None:
            told += f"; look-ahead: {found.guessed_right} of {found.guessed} guesses were right, "
            told += f"{format_bytes(found.wasted_bytes)} were read in vain; {self.pool.trial}"
        return told

    @property
    def _tiers(self) -> str:
        """Where the chosen experts were, if a GPU holds some as well."""
        found = self.statistics
        if not any(layer.elsewhere.any() for layer in self.layers):
            return ""
        share = [100 * count / (int(found.chosen[0]) + found.elsewhere) for count in (found.elsewhere, found.hits, found.misses)]
        where = f"{share[0]:.0f}% on the GPU, {share[1]:.0f}% in RAM, {share[2]:.0f}% on the disk"
        return f" ({where}; {counted(found.uploaded, 'expert')}, {format_bytes(found.uploaded_bytes)}, went to the GPU)"

    def close(self) -> None:
        """No expert is read any more; what was used is kept for the next time."""
        if self.warm_start is not None:
            self.warm_start.end()
        self._keep_history(int(self.pool.clock[0]))
        for layer in self.layers:
            layer.kernels.stop()
        files, self.pool.files = self.pool.files, None
        if files is not None:
            files.release()
        self.reader.close()
