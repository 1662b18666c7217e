"""What the figures are held against, and the table of them."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lacewing.options import counted

SPEED_GOALS = {"generate": (1.0, 1.15), "prompt": (1.3, 2.0)}  # times llama.cpp: at least, aim
AIMS = {("smollm2", "generate"): 1.4, ("qwen3moe-tiny", "generate"): 1.3}  # where it is another
SEQUENCES_GOALS = (512, 2.5), (8192, 2.0)  # times llama.cpp from four sequences on: with a context below, at least
BANDWIDTH_SHARE = (0.90, 0.97)
FIRST_TOKEN_SECONDS = (1.5, 0.8)
FIRST_RUN_SECONDS = 40.0
DIVERGENCE = 0.002  # nats
EAGER_FACTOR, EAGER_BYTES, LAZY_BYTES = 1.1, 250e6, 300e6  # memory besides the KV cache: factor of the file + bytes; bytes

BEGIN, END = "<!-- figures: benchmarks/compare.py -->", "<!-- end of figures -->"
WIDTH = 150  # characters, where the output goes to a file


@dataclass(frozen=True)
class Row:
    """One line: what was measured, both figures, the ratio that counts, what is asked of it, and whether it is reached."""

    name: str
    ours: str
    peer: str
    result: float
    shown: str
    goal: str
    reached: bool | None  # None: nothing is asked


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median, and the smallest and largest in brackets."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def speed_rows(model: str, ours: Sequence[dict[str, float]], peer: Sequence[dict[str, float]]) -> list[Row]:
    """Generation and prompt of one model, a measurement a round."""
    rows = []
    for what, (least, aim) in SPEED_GOALS.items():
        a, b = [one[what] for one in ours], [one[what] for one in peer]
        ratio = statistics.median(a) / statistics.median(b)
        aim = AIMS.get((model, what), aim)
        goal = f"{least} x, aim {aim} x"
        rows.append(Row(f"{model} {what}, tokens/s", spread(a), spread(b), ratio, f"{ratio:.2f} x", goal, ratio >= least))
    return rows


def sequence_rows(model: str, ours: Mapping[int, Sequence[float]], peer: Mapping[int, Sequence[float]], context: int) -> list[Row]:
    """Generation of several sequences together behind so many tokens of context each, by how many."""
    rows = []
    for count, a in ours.items():
        b = peer[count]
        ratio = statistics.median(a) / statistics.median(b)
        least = next((goal for most, goal in SEQUENCES_GOALS if context < most), 0.0) if count >= 4 else 0.0
        goal, reached = (f"{least} x", ratio >= least) if least else ("", None)
        name = f"{model}, {counted(count, 'sequence')}, tokens/s"
        rows.append(Row(name, spread(a), spread(b), ratio, f"{ratio:.2f} x", goal, reached))
    return rows


def bandwidth_row(model: str, speeds: Sequence[dict[str, float]], bytes_per_token: int, bandwidths: Sequence[float]) -> Row:
    """Generation as a share of what memory delivers: the median of all rounds, each beside its own reading (a shared machine's
    memory is at times twice as fast as at others)."""
    rates = [one["generate"] * bytes_per_token / 1e9 for one in speeds]
    share = statistics.median(rate / (read / 1e9) for rate, read in zip(rates, bandwidths, strict=True))
    least, aim = BANDWIDTH_SHARE
    reads = f"reads {spread([one / 1e9 for one in bandwidths])}"
    name = f"{model} weights, GB/s ({bytes_per_token / 1e6:.0f} MB a token)"
    return Row(name, spread(rates), reads, share, f"{share:.1%}", f"{least:.0%}, aim {aim:.0%}", share >= least)


def memory_row(model: str, residency: str, nbytes: int, file_bytes: int) -> Row:
    """Anonymous memory without keys and values."""
    limit = EAGER_FACTOR * file_bytes + EAGER_BYTES if residency == "eager" else LAZY_BYTES
    name = f"{model} {residency}, memory besides the KV cache, MB"
    return Row(name, f"{nbytes / 1e6:.0f}", "", nbytes, f"{nbytes / 1e6:.0f} MB", f"at most {limit / 1e6:.0f} MB", nbytes <= limit)


def first_token_row(seconds: Sequence[float]) -> Row:
    middle, (most, aim) = statistics.median(seconds), FIRST_TOKEN_SECONDS
    name = "smollm2, command to first token, s"
    return Row(name, spread(seconds, 2), "", middle, f"{middle:.2f} s", f"at most {most} s, aim {aim} s", middle <= most)


def first_run_row(model: str, seconds: float) -> Row:
    shown, goal = f"{seconds:.1f}", f"at most {FIRST_RUN_SECONDS:.0f} s"
    return Row(f"{model}, first run of all, s", shown, "", seconds, f"{shown} s", goal, seconds <= FIRST_RUN_SECONDS)


def divergence_rows(model: str, found: dict[str, Any]) -> list[Row]:
    """The divergence itself, and the peer's own rounding beside it."""
    ours, exact, to_exact = found["peer_to_ours"], found["peer_to_exact"], found["exact_to_ours"]
    name, mean = f"{model}, KL of llama.cpp to us, nats ({found['tokens']} tokens)", ours["mean"]
    reached = mean <= DIVERGENCE
    rows = [
        Row(name, f"{mean:.5f}", "", mean, f"same favourite {ours['same_favourite']:.1%}", f"at most {DIVERGENCE}", reached),
        Row(f"{model}, KL of llama.cpp to exact arithmetic", "", f"{exact['mean']:.5f}", exact["mean"], "", "", None),
        Row(f"{model}, KL of exact arithmetic to us", f"{to_exact['mean']:.5f}", "", to_exact["mean"], "", "", None),
    ]
    if "peer_to_other" in found:
        other = found["peer_to_other"]
        same = f"same favourite {other['same_favourite']:.1%}"
        rows.append(Row(f"{model}, KL of llama.cpp to its other build", "", f"{other['mean']:.5f}", other["mean"], same, "", None))
    return rows


def show(facts: dict[str, Any], rows: Sequence[Row], sides: tuple[str, str] = ("Lacewing", "llama.cpp")) -> None:
    """The table for people; `sides`: what is beside what."""
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    table = Table(title=f"{sides[0]} beside {sides[1]}: medians (smallest to largest)", title_justify="left")
    for heading in ("", *sides, "result", "goal", ""):
        table.add_column(heading, overflow="fold")
    for row in rows:
        mark = {True: "[green]reached[/]", False: "[red]missed[/]", None: ""}[row.reached]
        table.add_row(row.name, row.ours, row.peer, row.shown, row.goal, mark)
    for name, value in facts.items():
        console.print(f"{name}: {value}", highlight=False, markup=False)
    console.print(table)


def markdown(facts: dict[str, Any], rows: Sequence[Row]) -> str:
    """The table for the README."""
    lines = [
        *(f"- {name}: {value}" for name, value in facts.items()),
        "",
        "| | Lacewing | llama.cpp | result | goal |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| {row.name} | {row.ours} | {row.peer} | {row.shown} | {row.goal} |" for row in rows]
    return "\n".join(lines)


def write_readme(path: Path, table: str, marks: tuple[str, str] = (BEGIN, END)) -> None:
    """Put the table between two marks of a page. Raises ValueError where they are not."""
    text = path.read_text(encoding="utf-8")
    before, first, rest = text.partition(marks[0])
    _, last, after = rest.partition(marks[1])
    if not last:
        raise ValueError(f"{path} lacks the marks {marks[0]} and {marks[1]}")
    path.write_text(f"{before}{first}\n{table}\n{last}{after}", encoding="utf-8")


def as_json(facts: dict[str, Any], rows: Sequence[Row], raw: dict[str, Any]) -> dict[str, Any]:
    """Everything, also each single measurement."""
    return {"facts": facts, "rows": [asdict(row) for row in rows], "raw": raw}


def publish(
    options: argparse.Namespace,
    facts: dict[str, Any],
    rows: Sequence[Row],
    raw: dict[str, Any],
    marks: tuple[str, str] = (BEGIN, END),
) -> None:
    """As the flags `--readme` and `--json` ask; figures of a busy machine do not go into README.md."""
    if options.readme and "not to be published" not in facts:
        write_readme(Path(__file__).parent.parent / "README.md", markdown(facts, rows), marks)
    if options.json:
        print(json.dumps(as_json(facts, rows, raw)))
    else:
        show(facts, rows)
