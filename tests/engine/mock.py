"""Steps without a model: pages record which token stands at which position, units what has been run, and logits are a function of
what can be seen. So whoever puts a wrong page into a table, shares one that is written to, or drops one too early is found out."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace

import numpy as np

from lacewing.backends.batch import Batch, Candidates, Draw, StepLimits, Wanted
from lacewing.backends.step import RoutedLayer, Step
from lacewing.errors import OutOfMemoryError
from lacewing.program.operands import Buffer, View
from lacewing.program.ops import Logits
from lacewing.program.program import Program
from lacewing.program.states import PAGE, Chunk, FixedState, PagedState, Part, State, Window
from tests.maxima import maxima_of

VOCAB, WIDTH = 32, 8
Script = Callable[[list[int]], np.ndarray]  # ids of a sequence up to a position -> logits (V,)

FULL = PagedState((Part("keys", 1, 4),))
WINDOW = PagedState((Part("keys", 1, 4),), Window(150))
NARROW = PagedState((Part("keys", 1, 4),), Window(3))
CHUNK = PagedState((Part("keys", 1, 4),), Chunk(200))
SHORT = PagedState((Part("keys", 1, 4),), Chunk(24))
UNIT = FixedState((("conv", (2, 8)),))
KINDS: dict[str, tuple[State, ...]] = {
    "full": (FULL,),
    "windows": (FULL, WINDOW, NARROW),
    "chunks": (FULL, CHUNK),
    "short chunks": (FULL, SHORT),
    "only windows": (WINDOW, NARROW),
    "units": (FULL, UNIT),
    "everything": (FULL, WINDOW, CHUNK, UNIT, NARROW),
    "only units": (UNIT,),
}


def hashed(ids: list[int]) -> np.ndarray:
    """Logits that depend on every id and its place."""
    seed = sum((place + 1) * 31 * (token + 7) for place, token in enumerate(ids)) % 2**32
    return np.random.default_rng(seed).normal(size=VOCAB).astype(np.float32) * 3


def hidden_of(ids: list[int]) -> np.ndarray:
    """Hidden states (D,) after the last of these ids."""
    return np.random.default_rng(ids).normal(size=WIDTH).astype(np.float32)


def counting(ids: list[int]) -> np.ndarray:
    """The next id is always the last one plus one."""
    row = np.zeros(VOCAB, np.float32)
    row[(ids[-1] + 1) % VOCAB] = 20
    return row


class MockStep(Step):
    """`sizes`: the most pages or units of each group that there is memory for."""

    def __init__(
        self,
        script: Script = hashed,
        chunk: int = 4,
        context: int = 64,
        rows: int = 1,
        states: tuple[State, ...] = (FULL,),
        memory: Sequence[int] | None = None,
    ):
        head = Logits(View(Buffer("x", WIDTH), 0, WIDTH), "output.weight")
        super().__init__(Program((head,), {}, states, VOCAB), StepLimits(context, chunk, rows))
        self.buffer_bytes = 0
        self.script, self.memory = script, memory
        self.pages: list[list[np.ndarray]] = [[] for _ in self.groups]  # (2, 128): tokens and positions; -1: nothing
        self.units: list[list[list[int]]] = [[] for _ in self.groups]
        self.tables = [np.full((rows, self.table_width), -1, np.int32) for _ in self.groups]
        self.runs: list[int] = []  # tokens of each run
        self.ran: list[tuple[int, int]] = []  # first position and tokens of each part of each run
        self.watched = False
        self.routed: list[int] = []
        self.rebalanced: list[int] = []  # tokens that had been run
        self.seen: dict[int, list[int]] = {}  # ids up to each token of the last run whose hidden states are wanted
        self.heads: list[int] = []  # rows of logits of each run
        self.fail: Callable[[], None] = lambda: None  # called when half of a run is done

    def _run(self, batch: Batch) -> np.ndarray:
        self.runs.append(len(batch.tokens))
        self.heads.append(len(batch.outputs))
        hidden = set() if batch.hidden is None else set(batch.hidden.tolist())
        rows: dict[int, np.ndarray] = {}
        self.seen = {}
        for row, first, count in batch.parts:
            tokens, start = batch.tokens[first : first + count], int(batch.positions[first])
            self.ran.append((start, count))
            self._write_part(batch, row, tokens, start)
            if first not in batch.outputs:
                self._seen(batch, row, start, tokens, start)  # all that stands before the part is looked at
            for output in batch.outputs:
                if first <= output < first + count:
                    rows[int(output)] = self.script(self._seen(batch, row, int(batch.positions[output]), tokens, start))
            for token in hidden & set(range(first, first + count)):
                self.seen[token] = self._seen(batch, row, int(batch.positions[token]), tokens, start)
        self.fail()
        self.routed = batch.tokens.tolist()
        return np.array([rows[int(output)] for output in batch.outputs], np.float32).reshape(-1, VOCAB)

    def _write_part(self, batch: Batch, row: int, tokens: np.ndarray, start: int) -> None:
        at = 0
        for group, each in enumerate(self.groups):
            if each.paged:
                for position, token in enumerate(tokens.tolist(), start):
                    page = self.pages[group][self.tables[group][row, position // PAGE]]
                    page[:, position % PAGE] = token, position
                continue
            assert batch.units_in is not None and batch.units_out is not None
            read, write = int(batch.units_in[at, row]), int(batch.units_out[at, row])
            before = [] if read < 0 else self.units[group][read]
            assert len(before) == start, f"a unit holds the state after {len(before)} tokens and not after {start}"
            self.units[group][write] = before + tokens.tolist()
            at += 1

    def _seen(self, batch: Batch, row: int, position: int, tokens: np.ndarray, start: int) -> list[int]:
        """The ids up to a position, which all groups must agree about; `VOCAB` where none shows one."""
        ids = np.full(position + 1, VOCAB, np.int64)
        at = 0
        for group, each in enumerate(self.groups):
            if isinstance(each.state, PagedState):
                places = np.arange(each.state.first_seen(position), position + 1)
                pages = self.tables[group][row, places[0] // PAGE : position // PAGE + 1].tolist()
                whole = np.concatenate([self.pages[group][page] for page in pages], 1)
                seen, held = whole[:, places[0] % PAGE :][:, : len(places)]
                assert (held == places).all(), f"group {group}: a page holds other positions than its table says"
            else:
                assert batch.units_out is not None
                places = np.arange(position + 1)
                seen = np.array(self.units[group][int(batch.units_out[at, row])][: position + 1])
                at += 1
            known = ids[places] < VOCAB
            assert (ids[places][known] == seen[known]).all(), f"group {group} holds other tokens than the groups before it"
            ids[places] = seen
        own = tokens[: position + 1 - start]
        assert ((ids[start:] == own) | (ids[start:] == VOCAB)).all()
        return ids.tolist()

    def _hidden(self, view: View, which: np.ndarray) -> np.ndarray:
        return np.array([hidden_of(self.seen[int(each)]) for each in which], np.float32).reshape(-1, view.width)

    def _grow(self, group: int, count: int) -> None:
        if self.memory is not None and count > self.memory[group]:
            raise OutOfMemoryError("the test has no memory for more")
        store, empty = (
            (self.pages[group], lambda: np.full((2, PAGE), -1, np.int64)) if self.groups[group].paged else (self.units[group], list)
        )
        del store[count:]
        store += [empty() for _ in range(count - len(store))]

    def _put_table(self, group: int, row: int, first: int, ids: np.ndarray) -> None:
        self.tables[group][row, first : first + len(ids)] = ids

    def _copy(self, group: int, pairs: Sequence[tuple[int, int]], positions: int) -> None:
        for source, to in pairs:
            self.pages[group][to][:] = -1
            self.pages[group][to][:, :positions] = self.pages[group][source][:, :positions]

    def _read(self, group: int, ids: Sequence[int]) -> np.ndarray:
        raise NotImplementedError

    def _write(self, group: int, ids: Sequence[int], data: np.ndarray) -> None:
        raise NotImplementedError

    def _close(self) -> None: ...

    def rebalance(self) -> None:
        self.rebalanced.append(sum(self.runs))

    def watch_routes(self, on: bool) -> None:
        self.watched = on

    def routes(self) -> list[RoutedLayer]:
        """One layer of four experts, of which a token takes the one of its id."""
        ids = np.array(self.routed, np.int32)[:, None] % 4
        return [RoutedLayer(0, ids, (ids == np.arange(4)).astype(np.float32))] if self.watched else []


class SeeingStep(MockStep):
    """As a device that sees the largest of its logits while it makes them."""

    def _run(self, batch: Batch) -> np.ndarray:
        rows = super()._run(batch)
        self.maxima = maxima_of(rows, 4, 2)
        return rows


class AheadStep(MockStep):
    """A step that chooses by itself, as one on a GPU does: greedily and ahead of the host, or the largest few for a sampler."""

    most_candidates = 8
    runs_ahead = True

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.chosen = 0  # tokens that it chose or found candidates for
        self.asked: list[tuple[int, int]] = []  # first position and count of `greedy` and `drawn`

    def _choose(self, batch, wanted):
        self.chosen += len(wanted)
        return super()._choose(batch, wanted)

    def greedy(self, batch: Batch, count: int) -> Generator[np.ndarray, None, None]:
        self.asked.append((int(batch.positions[0]), count))
        return _one_further(super().greedy(batch, count), count)

    def drawn(self, batch: Batch, draws: Sequence[Draw], count: int, numbers: Callable[[int], Sequence[float]]):
        """Expects the likeliest tokens, so that it is often wrong."""
        self.asked.append((int(batch.positions[0]), count))
        return _one_further(super().drawn(batch, draws, count, numbers), count)


class DrawingStep(AheadStep):
    """Expects what is then drawn, where nothing but the random number and the temperature decide; counts the runs."""

    def drawn(self, batch: Batch, draws: Sequence[Draw], count: int, numbers: Callable[[int], Sequence[float]]):
        self.asked.append((int(batch.positions[0]), count))
        return _one_further(self._drawn(batch, draws, count, numbers), count)

    def _drawn(self, batch, draws, count, numbers) -> Iterator[tuple[list[Candidates], np.ndarray]]:
        for index in range(count):
            batch = replace(batch, outputs=np.arange(len(batch.tokens), dtype=np.int32))
            found = self.choose(batch, [Wanted(each.count) for each in draws])
            tokens = np.array([_likely(*each) for each in zip(found, draws, numbers(index), strict=True)])
            yield found, tokens
            batch = batch.following(tokens)


def _likely(found: Candidates, draw: Draw, number: float) -> int:
    weights = np.exp(found.logits.astype(np.float64) / draw.temperature)
    return int(found.ids[np.searchsorted(np.cumsum(weights), number * weights.sum(), side="right")])


def _one_further(choices: Iterator, count: int) -> Generator:
    """One run further than what it gives."""
    held = [next(choices)]
    for _ in range(count - 1):
        try:
            held.append(next(choices))
        except Exception:
            yield held.pop(0)
            raise
        yield held.pop(0)
    yield from held
