"""One run of benchmarks.streaming, in a process of its own that is in its memory group already. Prints one JSON object."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np

from benchmarks.groups import Counters
from benchmarks.routes import Override, misses, starts_of, trace

WARM = 16  # tokens before the clock starts
PATIENCE = 30.0  # seconds that slots may be filled from the history


class Job(NamedTuple):
    path: Path
    side: str
    routes: str
    peer: str
    memory: int
    prompt: int
    generate: int
    seconds: int
    threads: int

    @property
    def context(self) -> int:
        return self.prompt + WARM + self.generate + 8


class Side(NamedTuple):
    """`extend`: run some ids; the logits of the last one. `model`: ours."""

    extend: Callable[[list[int]], np.ndarray]
    vocab_size: int
    model: Any = None


class Meter:
    """How many reads of experts there were, and how long any was under way; of Python's, not of those that kernels ask for."""

    def __init__(self, reader: Any):
        self._lock, self._running, self._began, self.seconds, self.reads = threading.Lock(), 0, 0.0, 0.0, 0
        self._read, reader._read = reader._read, self._measured

    def _measured(self, *which: Any) -> None:
        self._count(1)
        try:
            self._read(*which)
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            if not self._running:
                self._began = time.perf_counter()
            self._running += change
            self.reads += change > 0
            if not self._running:
                self.seconds += time.perf_counter() - self._began


@contextmanager
def opened(job: Job) -> Iterator[Side]:
    if job.side == "llama.cpp":
        from benchmarks.peer import Peer

        peer = Peer(Path(job.peer), job.path, job.threads, job.context, mapped=True)
        yield Side(peer.extend, peer.vocab_size)
        peer.close()
        return
    import lacewing
    from lacewing.weights.experts import pack

    own_pack = job.side not in ("streamed", "ahead", "warm")  # that of another side is not for these
    places = nullcontext() if own_pack else patch.object(pack, "pack_places", lambda _: ())
    residency = job.side if job.side in ("eager", "lazy") else "streamed"
    options: dict[str, Any] = {"cold_start": job.side != "warm", "look_ahead": job.side == "ahead"}
    with (
        places,
        lacewing.load(
            job.path, backend="cpu", residency=residency, memory=job.memory, context=job.context, threads=job.threads, **options
        ) as model,
    ):
        if (experts := model.weights.experts) is not None and experts.warm_start is not None:
            experts.warm_start.wait(PATIENCE)
        yield Side(model.engine.extend, model.engine.vocab_size, model)


def draw(logits: np.ndarray, rng: np.random.Generator) -> int:
    """At temperature 1."""
    scores = logits.astype(np.float64)
    return int(np.argmax(scores - scores.max() + rng.gumbel(size=len(scores))))


class Use:
    """Counters of a run so far."""

    def __init__(self, experts: Any, meter: Meter | None):
        self.time, self.system = time.perf_counter(), Counters()
        use = None if experts is None else experts.statistics
        self.experts = (0, 0, 0.0, 0) if use is None else (use.hits, use.misses, use.waited, use.reads)
        self.reading, self.metered = (0.0, 0) if meter is None else (meter.seconds, meter.reads)


def run(job: Job) -> dict[str, Any]:
    rng = np.random.default_rng(7)  # the same for all sides
    with ExitStack() as stack:
        side = stack.enter_context(opened(job))
        experts = None if side.model is None else side.model.weights.experts
        meter = None if experts is None else Meter(experts.reader)
        first = Use(experts, meter)
        logits = side.extend(rng.integers(0, side.vocab_size, job.prompt).tolist())
        middle = Use(experts, meter)
        override, chosen = None, None
        if job.routes != "model" and side.model is not None:
            override = Override(side.model.step)
            chosen = trace(job.routes, WARM + job.generate, override.layers, override.experts, override.active)
            override.begin()
        starts = None if experts is None else starts_of(experts)
        started, skipped, done = middle, 0, 0
        while not skipped or (done < skipped + job.generate and time.perf_counter() - started.time < job.seconds):
            if not skipped and done and (done == WARM or time.perf_counter() - middle.time > job.seconds / 4):
                started, skipped = Use(experts, meter), done
            if override is not None and chosen is not None:
                override.put(chosen[done])
            logits = side.extend([draw(logits, rng)])
            done += 1
        found = told(first, middle, started, Use(experts, meter), job, done - skipped)
        if experts is not None:
            found |= of_experts(experts, started, done - skipped)
            if override is not None and chosen is not None:
                missing = misses(chosen[:done], override.experts, experts.slots.layer, starts)[skipped:]
                found["simulated"] = 1 - float(missing.mean()) / override.active
                found["missing"], found["mixture"] = missing.tolist(), mixture_of(side.model, override.active)
    return found


def told(first: Use, middle: Use, started: Use, end: Use, job: Job, tokens: int) -> dict[str, Any]:
    seconds, read = end.time - started.time, end.system.read_bytes - started.system.read_bytes
    metered = end.metered - started.metered >= end.experts[3] - started.experts[3]
    return {
        "prompt": job.prompt / (middle.time - first.time),
        "prompt_bytes": middle.system.read_bytes - first.system.read_bytes,
        "generate": tokens / seconds,
        "tokens": tokens,
        "bytes": read / tokens,
        "reading": read / max(end.reading - started.reading or seconds, 1e-9) if metered else None,
        "major_faults": (end.system.major_faults - started.system.major_faults) / tokens,
        "cpu": (end.system.cpu - started.system.cpu) / tokens,
        "swap": end.system.swap,
    }


def mixture_of(model: Any, active: int) -> tuple[int, float, float]:
    """See `routes.Mixture`."""
    layers = model.weights.experts.layers
    experts = sum(part.nbytes for layer in layers for expert in range(layer.experts) for part in layer._source.reads(expert).parts)
    return active, experts / sum(layer.experts for layer in layers), model.weights.nbytes - experts


def of_experts(experts: Any, started: Use, tokens: int) -> dict[str, Any]:
    end = Use(experts, None)
    hits, misses, waited, reads = (after - before for after, before in zip(end.experts, started.experts, strict=True))
    found = {
        "hit_rate": hits / max(1, hits + misses), "waited": waited / (end.time - started.time), "reads": reads / tokens,
        "slots": experts.slots.layer, "direct": experts.reader.way.direct, "readers": experts.reader.way.threads,
        "warmed": experts.statistics.warmed,
    }  # fmt: skip
    if experts.pool.trial is not None:
        use = experts.statistics
        found |= {"guessed": use.guessed, "guessed_right": use.guessed_right, "wasted_bytes": use.wasted_bytes}
        found["look_ahead"] = str(experts.pool.trial)
    return found


if __name__ == "__main__":
    path, *words = sys.argv[1:]
    print(json.dumps(run(Job(Path(path), *words[:3], *map(int, words[3:])))))
