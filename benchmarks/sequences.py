"""Several sequences that generate together, beside llama.cpp on this machine.

    python -m benchmarks.sequences --peer DIRECTORY [--models smollm2,llama-1b,qwen3moe-tiny] [--counts 1,2,4,8,16,32]
           [--context 64] [--steps 24] [--rounds 5] [--threads 2] [--readme] [--json]

DIRECTORY: llama.cpp's shared libraries, as for benchmarks.compare. Both engines take turns. Ours chooses each token by sampling;
the peer is given its tokens. `--readme` puts the table between its marks in README.md.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.compare import facts_of_machine, model_names
from benchmarks.models import MIXTURE, REAL, SYNTHETIC, path_of
from benchmarks.report import Row
from benchmarks.sides import Side
from lacewing.engine.bench import check_sequences
from lacewing.engine.pages import pages_of
from lacewing.program.states import PAGE

BEGIN, END = "<!-- figures: benchmarks/sequences.py -->", "<!-- end of sequences -->"
PROMPT = 256  # tokens of the prompt of which all logits are wanted
SHARE, SHARE_OF = 0.7, 16  # of our own prompt rate with all logits, at so many sequences


def compare(name: str, options: argparse.Namespace, raw: dict[str, Any]) -> list[Row]:
    """Ours, peer, ours, peer ..., for each count; the first round warms up."""
    counts, rows, context = options.counts, max(options.counts), options.context
    room = (options.rounds + 1) * (options.steps + 1) + 2 if context >= 512 else options.steps + 3
    length = pages_of(context + room) * PAGE * rows
    ours = Side("lacewing", path_of(name), options.threads, max(length, PROMPT + PAGE), options.residency, "cpu", rows)
    peer = Side("peer", path_of(name), options.threads, length, options.peer, rows)
    found: dict[str, dict[int, list[float]]] = {side: {count: [] for count in counts} for side in ("ours", "peer")}
    prompts = []
    with ours, peer:
        raw["facts"] = ours.ask("facts"), peer.ask("facts")
        for count, round_number in _order(counts, options.rounds, keep=context >= 512):
            for side, process in (("ours", ours), ("peer", peer)):
                speed = process.ask("together", count=count, context=context, steps=options.steps)["generate"]
                if round_number >= 0:
                    found[side][count].append(speed)
        for round_number in range(-1, options.rounds):
            speed = ours.ask("all_logits", tokens=PROMPT)["prompt"]
            if round_number >= 0:
                prompts.append(speed)
    raw[name] = found | {"prompt with all logits": prompts}
    table = report.sequence_rows(name, found["ours"], found["peer"], context)
    if SHARE_OF in counts and context < 512:
        table.append(_share_row(name, found["ours"][SHARE_OF], prompts))
    return table


def _order(counts: list[int], rounds: int, keep: bool) -> list[tuple[int, int]]:
    """(count, round) as they are measured: round after round, or, if sequences are kept, count after count."""
    numbers = range(-1, rounds)
    if keep:
        return [(count, number) for count in counts for number in numbers]
    return [(count, number) for number in numbers for count in counts]


def _share_row(name: str, generate: list[float], prompt: list[float]) -> Row:
    share = statistics.median(generate) / statistics.median(prompt)
    title = f"{name}, prompt of {PROMPT} with all logits, tokens/s"
    return Row(title, report.spread(prompt), "", share, f"{share:.0%} at {SHARE_OF} sequences", f"aim {SHARE:.0%}", share >= SHARE)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sequences", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer", type=Path, required=True, metavar="DIRECTORY", help="where llama.cpp's shared libraries are")
    parser.add_argument("--models", type=model_names, default=[REAL[0], SYNTHETIC, MIXTURE])
    parser.add_argument("--counts", type=check_sequences, default=[1, 2, 4, 8, 16, 32], metavar="N,...")
    parser.add_argument("--context", type=int, default=64, help="tokens of each sequence before the first step")
    parser.add_argument("--steps", type=int, default=24, help="of a measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--residency", choices=("auto", "eager", "lazy"), default="eager", help="of our weights")
    parser.add_argument("--readme", action="store_true", help="also put the table into README.md")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if not any(options.peer.glob("*llama.*")):
        parser.error(f"{options.peer} does not hold llama.cpp's libraries; benchmarks/compare.py says how to get them")
    options.peer = options.peer.resolve()
    return options


def main() -> None:
    options = parse()
    raw: dict[str, Any] = {}
    rows = [row for name in options.models for row in compare(name, options, raw)]
    work = f"{options.context} tokens of context, {options.steps} steps, {options.threads} threads, {options.rounds} rounds"
    facts = facts_of_machine(*raw.pop("facts"), f"{work}, with sampling (llama.cpp without)")
    report.publish(options, facts, rows, raw, (BEGIN, END))


if __name__ == "__main__":
    main()
