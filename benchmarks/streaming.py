"""A mixture of experts that is larger than memory: eager, lazy, streamed and llama.cpp by turns, each in a memory group of its own.

    python -m benchmarks.streaming FILE --memory 6GiB [--sides eager,lazy,streamed,packed,ahead,warm,llama.cpp] [--peer DIR]
           [--routes uniform,kimi,olmoe,FILE.jsonl] [--rounds 3] [--prompt 512] [--generate 64] [--seconds 120]
           [--reserve 512MiB] [--threads 2] [--no-group] [--json FILE]

Every run is a process in a control group that may use so much memory, the page cache included, and begins with none of the file in
the page cache. "eager" runs only if the file fits, or with `--no-group`; "streamed" reads the model's own files, "packed" the pack
that `lacewing pack` has made, "ahead" looks ahead, "warm" fills its slots from the usage history of the "warm" runs before (the
first has none), and "llama.cpp" maps the file and repacks nothing; `--peer` is the folder of its libraries. A prompt of random
tokens is read, then tokens are drawn at temperature 1, for so many seconds at most; the first 16 are not counted. ("ahead" decides
after 144 tokens whether it pays.) `--routes` tells what routers choose for these: each expert alike, a made-up trace like those of
Kimi-Linear or OLMoE for this model's layers, or a file; "model": the routers themselves. llama.cpp's routers cannot be told, so
that it runs once a round; those of random weights choose nearly alike. Streamed weights get the limit less `--reserve` (the
interpreter and its libraries). Hits are simulated beside, from what the slots hold after the prompt.

The disk is measured in reads of experts, as the side makes them, before and after each run. Shown are medians, and of tokens/s the
range: `read` is what a token had read, `GB/s` while reads were under way (not known of reads that kernels ask for) beside what the
disk gave alone, `bound` the share of the tokens/s that the disk allows, `on demand` the share of those that are possible if nothing
is read before a layer's router has decided (`routes.on_demand`, from the simulated misses and the eager side's time), `overlap`
max(computing, reading) / time of a token, where computing is the time of the eager side or else what was not waited for, and
`faults` major ones a token.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.groups import cached_bytes, forget, memory_group, peak_of, within
from benchmarks.routes import Mixture, on_demand
from lacewing.options import format_bytes, parse_bytes

SIDES = ("eager", "lazy", "streamed", "packed", "ahead", "warm", "llama.cpp")
PROBE_SECONDS = 2.0
NUMBERS = (("rounds", 3), ("prompt", 512), ("generate", 64), ("seconds", 120), ("threads", 2))
Run = dict[str, Any]


def files_of(path: Path, side: str) -> list[Path]:
    """Those that a side reads: the checkpoint's, and its pack."""
    from lacewing.formats import open_checkpoint
    from lacewing.weights.experts.pack import pack_places

    found = list(open_checkpoint(path).files) or [path]
    return found + [each for each in pack_places(path) if side == "packed" and each.exists()]


def disk(path: Path, side: str) -> float:
    """Bytes/s, in reads of experts as the side makes them."""
    from lacewing.options import LoadOptions
    from lacewing.placement.info import ModelInfo
    from lacewing.placement.packing import find_pack_of, plan_of
    from lacewing.weights.experts.probe import measure

    info = ModelInfo(path, LoadOptions(), warm=False)
    plan = plan_of(info)
    if side != "packed":
        return measure(plan.sources, info.checkpoint.identities, PROBE_SECONDS).rate
    found = find_pack_of(info, plan)
    if found.pack is None:
        raise SystemExit(found.problem or "there is no pack; `lacewing pack` makes one")
    return measure(found.pack.layers, {found.pack.path: found.pack.identity}, PROBE_SECONDS).rate


def child(arguments: argparse.Namespace, side: str, routes: str) -> Run:
    """One run in a process, and in a group, of its own."""
    for each in files_of(arguments.file, side):
        forget(each)
    cached = sum(map(cached_bytes, files_of(arguments.file, side)))
    before = disk(arguments.file, side)
    command = [sys.executable, "-m", "benchmarks.streaming_side", str(arguments.file), side, routes, str(arguments.peer or "")]
    limit = arguments.memory - arguments.reserve
    if side == "eager":  # which runs only where it fits
        limit = max(limit, 2 * sum(each.stat().st_size for each in files_of(arguments.file, "")))
    command += [str(limit)] + [str(getattr(arguments, name)) for name, _ in NUMBERS[1:]]
    if arguments.no_group:
        done, peak = subprocess.run(command, capture_output=True, text=True, check=False), 0
    else:
        with memory_group(arguments.memory) as group:
            done = subprocess.run(within(group, command), capture_output=True, text=True, check=False)
            peak = peak_of(group)
    found: Run = {"side": side, "routes": routes, "cached": cached, "peak": peak}
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        return found | {"problem": "it was killed for memory" if done.returncode in (-9, 137) else reason}
    return found | {"disk": (before + disk(arguments.file, side)) / 2} | json.loads(done.stdout.splitlines()[-1])


def plan_runs(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    """Sides and routes of a round. llama.cpp's routers cannot be told, and eager weights must fit."""
    sides = arguments.sides.split(",")
    if unknown := [side for side in sides if side not in SIDES]:
        raise SystemExit(f"there is no side {unknown[0]}; there are {', '.join(SIDES)}")
    if "llama.cpp" in sides and arguments.peer is None:
        raise SystemExit("llama.cpp needs --peer, the folder of its libraries")
    size = sum(each.stat().st_size for each in files_of(arguments.file, ""))
    sides = [side for side in sides if side != "eager" or arguments.no_group or size < arguments.memory - arguments.reserve]
    found = [(side, routes) for routes in arguments.routes.split(",") for side in sides if side != "llama.cpp"]
    return found + [("llama.cpp", "model")] * ("llama.cpp" in sides)


def summary(runs: list[Run]) -> list[Run]:
    """A row for each side and routes, in the order of their first runs: medians, and what follows from several of them."""
    found, eager = [], {}
    for side, routes in dict.fromkeys((run["side"], run["routes"]) for run in runs):
        these = [run for run in runs if (run["side"], run["routes"]) == (side, routes)]
        good = [run for run in these if "problem" not in run]
        row: Run = {
            "side": side,
            "routes": routes,
            "runs": len(good),
            "problems": [run["problem"] for run in these if "problem" in run],
        }
        if good:
            numbers = [key for key in good[0] if all(isinstance(run.get(key), (int, float)) for run in good)]
            row |= {key: statistics.median(run[key] for run in good) for key in numbers}
            row["range"] = [min(run["generate"] for run in good), max(run["generate"] for run in good)]
            if row["bytes"]:
                row["bound"] = statistics.median(run["disk"] / run["bytes"] for run in good)
            if side == "eager":
                eager[routes] = 1 / row["generate"]
            waited = row.get("waited")
            computing = eager.get(routes) or (None if waited is None else (1 - waited) / row["generate"])
            if computing is not None and side != "eager":
                row["overlap"] = max(computing, row["bytes"] / row["disk"]) * row["generate"]
            if routes in eager and "missing" in good[0]:
                each = [on_demand(np.array(run["missing"]), Mixture(*run["mixture"]), eager[routes], run["disk"]) for run in good]
                row["on_demand"] = statistics.median(each)
        found.append(row)
    return found


HEAD = ("side", "routes", "tokens/s", "prompt", "read", "hits", "GB/s", "bound", "on demand", "overlap", "faults", "swap", "peak")


def table(rows: list[Run]) -> str:
    """Markdown."""
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    for row in rows:
        if not row["runs"]:
            lines.append(f"| {row['side']} | {row['routes']} | {row['problems'][0]} |" + " |" * (len(HEAD) - 3))
            continue
        expected = "" if "simulated" not in row else f" ({row['simulated']:.1%} simulated)"
        cells = (
            row["side"], row["routes"], f"{row['generate']:.2f} ({row['range'][0]:.2f} to {row['range'][1]:.2f})",
            f"{row['prompt']:.1f}", format_bytes(row["bytes"]), f"{row['hit_rate']:.1%}{expected}" if "hit_rate" in row else "",
            f"{row['reading'] / 1e9:.2f} of {row['disk'] / 1e9:.2f}" if "reading" in row else f"of {row['disk'] / 1e9:.2f}",
            f"{row['generate'] / row['bound']:.0%} of {row['bound']:.2f}" if "bound" in row else "",
            f"{row['generate'] / row['on_demand']:.0%} of {row['on_demand']:.2f}" if "on_demand" in row else "",
            f"{row['overlap']:.2f}" if "overlap" in row else "", f"{row['major_faults']:.1f}", format_bytes(row["swap"]),
            format_bytes(row["peak"]) if row["peak"] else "",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
        lines += [f"| {row['side']} | {row['routes']} | {problem} |" + " |" * (len(HEAD) - 3) for problem in row["problems"]]
    return "\n".join(lines)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--memory", type=parse_bytes, default="6GiB")
    parser.add_argument("--reserve", type=parse_bytes, default="512MiB")
    parser.add_argument("--sides", default="eager,lazy,streamed")
    parser.add_argument("--routes", default="uniform")
    parser.add_argument("--peer", type=Path)
    for name, value in NUMBERS:
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--no-group", action="store_true", help="without a limit, for those who may not make groups")
    parser.add_argument("--json", type=Path, help="a file for all runs, which is written after each")
    arguments = parser.parse_args(words)
    runs: list[Run] = []
    size = sum(each.stat().st_size for each in files_of(arguments.file, ""))
    for number in range(arguments.rounds):
        for side, routes in plan_runs(arguments):
            runs.append({"round": number} | child(arguments, side, routes))
            print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
            if arguments.json is not None:
                facts = {"file": str(arguments.file), "size": size, "limit": arguments.memory, "cores": os.cpu_count()}
                arguments.json.write_text(json.dumps(facts | {"rows": summary(runs), "runs": runs}, indent=1) + "\n")
    print(f"{arguments.file.name}, {format_bytes(size)}, in {format_bytes(arguments.memory)}\n\n{table(summary(runs))}")


if __name__ == "__main__":
    main()
