"""Two checkouts of this project beside each other: is a single conversation as fast after a change as before?

    git worktree add /tmp/before COMMIT
    python -m benchmarks.pairs /tmp/before FILE ... [--pairs 30] [--threads 2] [--backend cpu] [--prompt 128] [--generate 32]

Each checkout keeps the model loaded in a process of its own. They take turns, in an order that changes with every pair, with the
same prompt and a greedy answer. Shown is the geometric mean of the ratios after / before with its 95 % interval (Student's t).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

from benchmarks.sides import ROOT, Side

T_95 = {5: 2.776, 10: 2.262, 20: 2.093, 30: 2.045, 60: 2.001}  # two-sided, by the number of pairs


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """Geometric mean, and the lower and upper end of its 95 % interval."""
    logs = [math.log(ratio) for ratio in ratios]
    mean = statistics.fmean(logs)
    t = next((value for count, value in sorted(T_95.items(), reverse=True) if len(logs) >= count), 4.303)
    half = t * statistics.stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else math.inf
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def compare(path: str, options: argparse.Namespace) -> dict[str, Any]:
    """Ratios after / before of tokens/s of the prompt and of generation; of the time to the first token before / after."""
    context = options.prompt + options.generate + 64
    arguments = ("lacewing", Path(path).resolve(), options.threads, context, options.residency, options.backend)
    before, after = (Side(*arguments, root=root) for root in (Path(options.before).resolve(), ROOT))
    rounds: list[tuple[dict[str, float], dict[str, float]]] = []
    work = {"prompt": options.prompt, "generate": options.generate}
    try:
        for pair in range(-1, options.pairs):
            order = (before, after) if pair % 2 else (after, before)
            found = {side: side.ask("greedy", **work) for side in order}
            if pair >= 0:
                rounds.append((found[before], found[after]))
    finally:
        for side in (before, after):
            side.__exit__(None, None, None)
    result: dict[str, Any] = {"file": Path(path).name, "pairs": options.pairs}
    for what in ("prompt", "generate"):
        ratio, low, high = interval([new[what] / old[what] for old, new in rounds])
        medians = [statistics.median(each[what] for each in side) for side in zip(*rounds, strict=True)]
        result[what] = {"before": medians[0], "after": medians[1], "ratio": ratio, "low": low, "high": high}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("before", help="a checkout of the commit before")
    parser.add_argument("files", nargs="+")
    for name, default in (("pairs", 30), ("threads", 2), ("prompt", 128), ("generate", 32)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--backend", default="cpu")
    parser.add_argument("--residency", default="eager")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for path in options.files:
        found = compare(path, options)
        if options.json:
            print(json.dumps(found), flush=True)
            continue
        for what in ("prompt", "generate"):
            one = found[what]
            speeds = f"{one['before']:.1f} before, {one['after']:.1f} after"
            print(
                f"{found['file']} {what}: {one['ratio']:.3f} ({one['low']:.3f} to {one['high']:.3f}); {speeds} tokens/s", flush=True
            )


if __name__ == "__main__":
    main()
