"""A step whose logits are a pure function of the ids so far, for tests of the engine without a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from lacewing.backends.batch import Candidates, StepLimits
from lacewing.backends.step import RoutedLayer
from lacewing.errors import NumericError

VOCAB = 32
Script = Callable[[list[int]], np.ndarray]  # ids of a slot up to a position -> logits (V,)


def hashed(ids: list[int]) -> np.ndarray:
    """Logits that depend on every id and its place."""
    seed = sum((place + 1) * 31 * (token + 7) for place, token in enumerate(ids)) % 2**32
    return np.random.default_rng(seed).normal(size=VOCAB).astype(np.float32) * 3


def counting(ids: list[int]) -> np.ndarray:
    """The next id is always the last one plus one."""
    row = np.zeros(VOCAB, np.float32)
    row[(ids[-1] + 1) % VOCAB] = 20
    return row


class MockStep:
    """Holds ids as a real step holds keys and values; checks the contract of `Step.run`."""

    def __init__(self, script: Script = hashed, chunk: int = 4, context: int = 64):
        self.limits = StepLimits(context=context, chunk=chunk)
        self.buffer_bytes = self.kv_bytes = 0
        self.script = script
        self.held: list[int] = []
        self.runs: list[int] = []  # tokens of each run
        self.watched = False

    def run(self, tokens: np.ndarray, slots: np.ndarray, positions: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        for array in (tokens, slots, positions, outputs):
            assert array.dtype == np.int32
        assert 1 <= len(tokens) <= self.limits.chunk and len(tokens) == len(slots) == len(positions)
        start = int(positions[0])
        assert start <= len(self.held) and list(positions) == list(range(start, start + len(tokens)))
        assert positions[-1] < self.limits.context
        self.held[start:] = tokens.tolist()
        self.runs.append(len(tokens))
        rows = [self.script(self.held[: start + int(row) + 1]) for row in outputs]
        return np.array(rows, np.float32).reshape(len(outputs), VOCAB)

    def rebind(self) -> None: ...

    def watch_routes(self, on: bool) -> None:
        self.watched = on

    def routes(self) -> list[RoutedLayer]:
        """One layer of four experts, of which a token takes the one of its id."""
        ids = np.array(self.held[-self.runs[-1] :], np.int32)[:, None] % 4
        return [RoutedLayer(0, ids, (ids == np.arange(4)).astype(np.float32))] if self.watched else []

    def close(self) -> None: ...


class AheadStep(MockStep):
    """A step that chooses by itself, as one on a GPU does: greedily and ahead of the host, or the largest few for a sampler."""

    most_candidates = 8
    chosen = 0  # tokens that it chose or found candidates for

    def greedy(self, token: int, slot: int, position: int, count: int) -> Iterator[int]:
        for place in range(position, position + count):
            token = int(self._checked(self._one(token, slot, place)).argmax())
            yield token

    def candidates(self, token: int, slot: int, position: int) -> Candidates:
        row = self._checked(self._one(token, slot, position))
        ids = np.argsort(-row, kind="stable")[: self.most_candidates]
        return Candidates(ids, row[ids], float(np.log(np.exp(row.astype(np.float64)).sum())))

    def _one(self, token: int, slot: int, position: int) -> np.ndarray:
        self.chosen += 1
        arrays = (np.array([value], np.int32) for value in (token, slot, position, 0))
        return np.asarray(super().run(*arrays)[0])

    def _checked(self, row: np.ndarray) -> np.ndarray:
        if not np.isfinite(row.max()):
            raise NumericError(f"NaN or infinite logits at position {len(self.held) - 1}")
        return row
