"""How many of a router's choices a GPU has that holds a part of each layer's experts: traces, replayed through the cache manager.

    python -m benchmarks.resident_experts TRACE.jsonl:EXPERTS ... [--every 24]

TRACE: a JSON line a token with `layers`, the ids of each layer, as `lacewing stats --trace` writes it; EXPERTS: how many a layer
has. The cache is rebalanced every so many tokens; what came before the first time does not count.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np

from lacewing.backends.batch import Batch, StepLimits
from lacewing.backends.step import Step, SwapIn
from lacewing.backends.weights import WeightView
from lacewing.offload.cache import ExpertCacheBackend
from lacewing.offload.rebalance import Rebalancer
from lacewing.program.ops import Buffer, Dispatch, Receive, Send
from lacewing.program.program import Program
from lacewing.quants import by_name

PARTS = (2, 4, 8)  # of the experts one in so many is resident


class Instant:
    """A device to which any expert comes at once."""

    def put_experts(self, swaps: Sequence[SwapIn], begin: Callable[[], None]) -> None:
        begin()


def replay(path: Path, experts: int, part: int, every: int) -> float:
    """The share of choices that were among the resident experts."""
    tokens = [json.loads(line)["layers"] for line in path.read_text(encoding="utf-8").splitlines()]
    layers, active = len(tokens[0]), len(tokens[0][0])
    ids, here, there = (Buffer(name, active).view() for name in ("ids", "here", "there"))
    stage = (Receive((ids,)), Dispatch(ids, here, there, experts, experts // part), Send((there, here)))
    # experts of one value: all that the manager asks of them is how long they take
    weight = cast(WeightView, SimpleNamespace(name="w", shape=(experts, 1, 1), quant=by_name("F32"), scales=None, slots=None))
    stacks, device, shares = [{"w": weight}] * layers, cast(Step, Instant()), []
    step = ExpertCacheBackend().compile(Program(stage * layers, {}, (), experts), {}, StepLimits(context=len(tokens), chunk=16))
    rebalancer = Rebalancer(step, device, stacks)
    for start in range(0, len(tokens), every):
        rebalancer.run()
        for position, token in enumerate(tokens[start : start + every], start):
            step.begin(Batch.of([0], position, []))
            for layer, chosen in enumerate(token):
                step.stage(layer, [np.array([chosen], np.int32).view(np.float32)])
        if start and step.statistics.hit_rate is not None:
            shares.append(step.statistics.hit_rate)
    return statistics.fmean(shares)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="The share of choices that a GPU has which holds a part of the experts.")
    parser.add_argument("traces", nargs="+", metavar="TRACE:EXPERTS")
    parser.add_argument("--every", type=int, default=24)
    given = parser.parse_args(words)
    for each in given.traces:
        path, _, experts = each.rpartition(":")
        told = ", ".join(f"1/{part} resident: {replay(Path(path), int(experts), part, given.every):.0%}" for part in PARTS)
        print(f"{Path(path).stem}: {told}")


if __name__ == "__main__":
    main()
