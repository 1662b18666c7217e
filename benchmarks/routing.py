"""What routing statistics cost: a mixture of experts with and without them, by turns in one process.

    python -m benchmarks.routing [--model PATH] [--rounds 9] [--generate 128] [--prompt 512] [--threads 2]

Without a model, the random one of benchmarks/compare.py. The goal: less than 2 % slower when they are on.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import psutil

import lacewing
from benchmarks import report
from benchmarks.models import MIXTURE, path_of
from benchmarks.report import Row
from benchmarks.sides import speed
from lacewing.engine.engine import Engine
from lacewing.engine.routing import AnswerRouting

GOAL = 0.02  # slower by at most


def measure(engine: Engine, prompt: int, generate: int, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Tokens/s with statistics "off" and "on", a measurement a round; the first round warms up."""
    found: dict[str, list[dict[str, float]]] = {"off": [], "on": []}
    for round_number in range(-1, rounds):
        for side in ("off", "on"):
            one = _watched(engine, prompt, generate) if side == "on" else speed(engine, prompt, generate)
            if round_number >= 0:
                found[side].append(one)
    return found


def _watched(engine: Engine, prompt: int, generate: int) -> dict[str, float]:
    watched = AnswerRouting()
    engine.observe(watched)
    try:
        one = speed(engine, prompt, generate)
        counted = watched.statistics.layers()
    finally:
        engine.unobserve(watched)
    if not counted or counted[0].tokens != prompt + generate:
        raise RuntimeError(f"{counted[0].tokens if counted else 0} tokens were counted instead of {prompt + generate}")
    return one


def rows(found: dict[str, list[dict[str, float]]]) -> list[Row]:
    """What it costs to have them on: how much longer a token takes, of medians."""
    result = []
    for what in ("generate", "prompt"):
        off, on = ([one[what] for one in found[side]] for side in ("off", "on"))
        slower = statistics.median(off) / statistics.median(on) - 1
        shown, goal = f"{slower:+.1%}", f"at most {GOAL:.0%} slower"
        result.append(Row(f"{what}, tokens/s", report.spread(on), report.spread(off), slower, shown, goal, slower <= GOAL))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.routing", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, help="a mixture of experts")
    for name, default in (("rounds", 9), ("generate", 128), ("prompt", 512), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    path, context = options.model or path_of(MIXTURE), options.prompt + options.generate + 64
    with lacewing.load(path, backend="cpu", residency="eager", context=context, threads=options.threads) as model:
        busy = psutil.cpu_percent(1.0)
        found = rows(measure(model.engine, options.prompt, options.generate, options.rounds))
        report.show({"model": path, "others use": f"{busy:.0f}% of the processors"}, found, ("with statistics", "without"))


if __name__ == "__main__":
    main()
