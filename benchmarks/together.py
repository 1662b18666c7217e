"""Several sequences that generate together: what a side of `benchmarks.sequences` does in its process."""

from __future__ import annotations

import time
from typing import Protocol

import numpy as np

from benchmarks.peer import BATCH, Peer
from lacewing.engine.engine import Engine, Request, Stream
from lacewing.options import Sampling

LONG = 512  # tokens of a context from which on sequences are kept from one measurement to the next


class Runs(Protocol):
    """So many sequences behind their prompts."""

    def go(self, steps: int) -> int:
        """Run steps; how many tokens they gave."""

    def close(self) -> None: ...


class OurRuns:
    """We choose every token by sampling."""

    def __init__(self, engine: Engine, count: int, context: int):
        engine.forget()
        prompts = _prompts(engine.vocab_size, count, context)
        self._engine = engine
        longest = engine.context // engine.step.limits.rows - context  # without a limit they would not be let in together
        samplings = [Sampling(seed=number, max_tokens=longest) for number in range(count)]
        self._streams = [engine.submit(Request(ids.tolist(), each)) for ids, each in zip(prompts, samplings, strict=True)]
        while not all(stream.stats.generated_tokens for stream in self._streams):
            self._advance()

    def _advance(self) -> None:
        if not self._engine.advance():
            for stream in self._streams:
                next(stream, None)  # raises why it has none

    def go(self, steps: int) -> int:
        before = self._generated()
        for _ in range(steps):
            self._advance()
        return self._generated() - before

    def _generated(self) -> int:
        return sum(stream.stats.generated_tokens for stream in self._streams)

    def close(self) -> None:
        streams: list[Stream] = self._streams
        for stream in streams:
            stream.close()


class PeerRuns:
    """The peer runs tokens that are given and chooses none, which spares it some work. Of a long context it reads one prompt,
    and copies the cache of it for the other sequences."""

    def __init__(self, peer: Peer, count: int, context: int):
        peer.forget()
        self._peer, self._count, self._position = peer, count, context
        prompts = _prompts(peer.vocab_size, count, context)
        for number, ids in enumerate(prompts):
            if number and context >= LONG:
                peer.copy(0, number)
                continue
            for start in range(0, context, BATCH):
                part = ids[start : start + BATCH].tolist()
                peer.run(part, range(start, start + len(part)), [number] * len(part), outputs=1)

    def go(self, steps: int) -> int:
        ids = np.random.Generator(np.random.PCG64(self._position)).integers(0, self._peer.vocab_size, (steps, self._count))
        for step in ids.tolist():
            self._peer.run(step, [self._position] * self._count, range(self._count))
            self._position += 1
        return steps * self._count

    def close(self) -> None:
        """The cache is dropped by who comes next."""


def _prompts(vocab_size: int, count: int, context: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(count)).integers(0, vocab_size, (count, context))


class Together:
    """What is kept between two measurements, by the count and the context."""

    def __init__(self) -> None:
        self._made: tuple[int, int] | None = None
        self._runs: Runs | None = None

    def measure(self, runner: object, count: int, context: int, steps: int) -> dict[str, float]:
        """Tokens/s of all sequences together. The first measurement of sequences runs one step more, which is not counted."""
        if self._made != (count, context) or context < LONG or self._runs is None:
            if self._runs is not None:
                self._runs.close()
            self._made, self._runs = (count, context), _open(runner, count, context)
            self._runs.go(1)
        began = time.perf_counter()
        tokens = self._runs.go(steps)
        return {"generate": tokens / (time.perf_counter() - began)}


def _open(runner: object, count: int, context: int) -> Runs:
    if isinstance(runner, Engine):
        return OurRuns(runner, count, context)
    assert isinstance(runner, Peer)
    return PeerRuns(runner, count, context)


def all_logits(runner: object, tokens: int) -> dict[str, float]:
    """Tokens/s of a prompt of which every row of logits is wanted; ours."""
    assert isinstance(runner, Engine)
    ids = np.random.Generator(np.random.PCG64(1)).integers(0, runner.vocab_size, tokens).tolist()
    began = time.perf_counter()
    runner.logits(ids)
    return {"prompt": tokens / (time.perf_counter() - began)}
