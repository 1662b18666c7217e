"""One sequence at several thread counts, beside llama.cpp on this machine.

    python -m benchmarks.threads --peer DIRECTORY [--models llama-1b,llama-8b] [--threads 1,2,4,8,all] [--rounds 5]
           [--prompt 128] [--generate 24] [--readme] [--json]

DIRECTORY: llama.cpp's shared libraries, as for benchmarks.compare. Both engines keep the model and take turns; `all` is every
CPU that this process may use. `--readme` puts the table between its marks in README.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks import report
from benchmarks.compare import BUSY, SETTLE_SECONDS, facts_of_machine
from benchmarks.models import GEOMETRIES, NAMES, SYNTHETIC, path_of
from benchmarks.report import Row
from benchmarks.sides import Side
from lacewing.backends.processors import allowed
from lacewing.options import counted

BEGIN, END = "<!-- figures: benchmarks/threads.py -->", "<!-- end of threads -->"
GOALS = {"generate": (1.1, 1.3), "prompt": (1.0, 1.5)}  # times llama.cpp: at least, aim
FEW = 4  # threads; with fewer a quarter of the tokens is measured


def compare(name: str, options: argparse.Namespace, raw: dict[str, Any]) -> list[Row]:
    """Ours, peer, ours, peer ..., at each thread count in turn."""
    path, context, most = path_of(name), options.prompt + options.generate + 64, max(options.threads)
    ours = Side("lacewing", path, most, context, "eager", "cpu")
    peer = Side("peer", path, most, context, options.peer)
    found: dict[str, dict[int, list[dict[str, float]]]] = {side: {n: [] for n in options.threads} for side in ("ours", "peer")}
    with ours, peer:
        facts, peer_facts = ours.ask("facts"), peer.ask("facts")
        time.sleep(SETTLE_SECONDS)
        busy = psutil.cpu_percent(1.0)  # both sides are idle now
        for round_number in range(-1, options.rounds):  # the first one warms up, with all threads
            for threads in options.threads if round_number >= 0 else [most]:
                share = 4 if threads < FEW else 1
                for side, process in (("ours", ours), ("peer", peer)):
                    process.ask("threads", count=threads)
                    speed = process.ask("speed", prompt=options.prompt // share, generate=options.generate // share)
                    if round_number >= 0:
                        found[side][threads].append(speed)
    raw[name] = {**found, "facts": facts, "peer_facts": peer_facts, "busy": busy}
    return rows_of(name, found["ours"], found["peer"])


def rows_of(name: str, ours: dict[int, list[dict[str, float]]], peer: dict[int, list[dict[str, float]]]) -> list[Row]:
    """Generation at each count, then prompts."""
    rows = []
    for what, (least, aim) in GOALS.items():
        for threads in ours:
            a, b = ([one[what] for one in side[threads]] for side in (ours, peer))
            ratio = statistics.median(a) / statistics.median(b)
            title = f"{name} {what}, {counted(threads, 'thread')}, tokens/s"
            goal = f"{least} x, aim {aim} x"
            rows.append(Row(title, report.spread(a), report.spread(b), ratio, f"{ratio:.2f} x", goal, ratio >= least))
    return rows


def thread_counts(text: str) -> list[int]:
    """`1,2,all`, without those that this machine has no CPUs for. Raises ArgumentTypeError."""
    most, found = len(allowed()), set()
    for word in text.split(","):
        if word != "all" and not (word.isdecimal() and int(word)):
            raise argparse.ArgumentTypeError(f"{word!r} is neither a number of threads nor `all`")
        found.add(most if word == "all" else int(word))
    return sorted(count for count in found if count <= most) or [most]


def model_names(text: str) -> list[str]:
    """Names of measured models or files. Raises ArgumentTypeError."""
    names = text.split(",")
    for name in names:
        if name not in (*NAMES, *GEOMETRIES):
            raise argparse.ArgumentTypeError(
                f"{name!r} is not measured; there are {', '.join({**dict.fromkeys(NAMES), **GEOMETRIES})}"
            )
    return names


def measure(options: argparse.Namespace) -> tuple[dict[str, Any], list[Row], dict[str, Any]]:
    """Facts, rows and single measurements."""
    raw: dict[str, Any] = {}
    rows = [row for name in options.models for row in compare(name, options, raw)]
    one = raw[options.models[0]]
    work = f"prompt {options.prompt}, generate {options.generate}, {options.rounds} rounds, of 1 to {FEW - 1} threads a quarter"
    facts = facts_of_machine(one["facts"], one["peer_facts"], work)
    busy = max(raw[name]["busy"] for name in options.models)
    if busy > BUSY:
        facts["not to be published"] = f"other programs used {busy:.0f}% of the processors"
    return facts, rows, raw


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.threads", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer", type=Path, required=True, metavar="DIRECTORY", help="where llama.cpp's shared libraries are")
    parser.add_argument("--models", type=model_names, default=[SYNTHETIC], metavar="NAME,...")
    parser.add_argument("--threads", type=thread_counts, default=thread_counts("1,2,4,8,all"), metavar="N,...")
    parser.add_argument("--prompt", type=int, default=128, help="tokens")
    parser.add_argument("--generate", type=int, default=24, help="tokens")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--readme", action="store_true", help="also put the table into README.md, unless the machine was busy")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if not any(options.peer.glob("*llama.*")):
        parser.error(
            f"{options.peer} does not hold llama.cpp's libraries; the first lines of benchmarks/compare.py say how to get them"
        )
    options.peer = options.peer.resolve()
    return options


def main() -> None:
    options = parse()
    facts, rows, raw = measure(options)
    report.publish(options, facts, rows, raw, (BEGIN, END))


if __name__ == "__main__":
    main()
