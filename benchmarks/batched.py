"""A GPU backend by turns with llama.cpp's own `llama-batched-bench`: a prompt, one sequence, and several.

    python -m benchmarks.batched FILE ... --peer PROGRAM [--prompt 512] [--generate 64] [--sequences 8,32] [--rounds 3]
           [--backend cuda|webgpu] [--json]

PROGRAM is built from llama.cpp's sources, for example those in PyPI's llama-cpp-python (vendor/llama.cpp), with
`-DGGML_CUDA=ON`: that build crashed while loading when it was driven through the C API, as `benchmarks.gpu` drives other
builds. Ours stays loaded and takes turns with runs of the program. One sequence of ours is greedy; of several, each token is
sampled. The program chooses no tokens.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any

from benchmarks.sides import Side

CONTEXT = 64  # tokens of the prompts of several sequences
ROOM = 512  # positions of a sequence
REPEATS = 3  # of each measurement of the program
WARM_SECONDS = 1.0  # a GPU that idles clocks down, and takes its time to come back


def peer_speeds(program: str, file: str, prompt: int, generate: int, sequences: list[int]) -> dict[str, float]:
    """Tokens/s by what was measured, the best of REPEATS: a GPU that has just been idle is slow at first. Raises RuntimeError with
    the program's words."""
    found: dict[str, float] = {}
    for alone, tokens, counts in ((True, prompt, [1]), (False, CONTEXT, sequences)):
        for line in _lines(program, file, tokens, generate, counts) if counts else ():
            speeds = {"prompt": line["speed_pp"]} if alone else {}
            speeds["generate" if alone else f"{line['pl']} sequences"] = line["speed_tg"]
            found |= {what: max(speed, found.get(what, 0.0)) for what, speed in speeds.items()}
    return found


def _lines(program: str, file: str, prompt: int, generate: int, counts: list[int]) -> list[dict[str, Any]]:
    room = max(counts) * (prompt + generate) + 256
    command = [
        program,
        "-m",
        file,
        "-c",
        str(room),
        "-b",
        "2048",
        "-ub",
        "512",
        "-ngl",
        "99",
        "-fa",
        "on",
        "--output-format",
        "jsonl",
    ]
    command += ["-npp", ",".join([str(prompt)] * REPEATS), "-ntg", str(generate), "-npl", ",".join(map(str, counts))]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or len(lines) != REPEATS * len(counts):
        raise RuntimeError(f"{program} ended with {done.returncode}: {done.stderr[-1000:]}")
    return lines


def our_speeds(ours: Side, prompt: int, generate: int, sequences: list[int]) -> dict[str, float]:
    """The same of our engine, each measurement behind others of the same."""
    found = _warm(lambda: ours.ask("greedy", prompt=prompt, generate=generate))
    for count in sequences:
        order = {"count": count, "context": CONTEXT, "steps": generate}
        found[f"{count} sequences"] = _warm(lambda order=order: ours.ask("together", **order))["generate"]  # type: ignore[misc]
    return found


def _warm(measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    began = time.perf_counter()
    while time.perf_counter() - began < WARM_SECONDS:
        measure()
    return measure()


def compare(file: str, options: argparse.Namespace) -> dict[str, Any]:
    """Medians of both, tokens/s; the first round warms up."""
    counts = options.sequences
    rows = max([1, *counts])
    with Side("lacewing", file, 8, max(options.prompt + options.generate + 64, rows * ROOM), "lazy", options.backend, rows) as ours:
        found: dict[str, Any] = {"file": file, "facts": ours.ask("facts")}
        rounds: dict[str, list[dict[str, float]]] = {"ours": [], "peer": []}
        for number in range(options.rounds + 1):
            speeds = {"ours": our_speeds(ours, options.prompt, options.generate, counts)}
            if options.peer:
                speeds["peer"] = peer_speeds(options.peer, file, options.prompt, options.generate, counts)
            for side, speed in speeds.items() if number else ():
                rounds[side].append(speed)
    for side, each in rounds.items():
        found[side] = {what: statistics.median(one[what] for one in each) for what in (each[0] if each else ())}
    return found


def shown(found: dict[str, Any]) -> str:
    """For people."""
    lines = [f"{found['file']} on {found['facts']['device']}"]
    for what, speed in found["ours"].items():
        line = f"  {what:13} {speed:9.1f} tokens/s"
        if found["peer"]:
            line += f", llama.cpp {found['peer'][what]:9.1f}: {speed / found['peer'][what]:.2f} x"
        lines.append(line)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--peer", help="llama.cpp's program llama-batched-bench")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generate", type=int, default=64)
    parser.add_argument("--sequences", type=lambda text: [int(each) for each in text.split(",") if each], default=[8, 32])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backend", default="cuda", choices=("cuda", "webgpu"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for file in options.files:
        found = compare(file, options)
        print(json.dumps(found) if options.json else shown(found), flush=True)


if __name__ == "__main__":
    main()
