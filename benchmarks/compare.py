"""Lacewing beside llama.cpp on this machine: speed, memory, start and agreement, each figure with its goal.

    make bench PEER=package/bins/linux-x64           (from `npm pack @node-llama-cpp/linux-x64`, unpacked)
    python -m benchmarks.compare --peer DIRECTORY [--models smollm2,llama-1b] [--rounds 5] [--kl 512] [--peer-other DIRECTORY]
           [--cold] [--readme] [--json]

Both engines stay alive in processes of their own and take turns, so that whatever else the machine does hits both.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks import report
from benchmarks.divergence import divergences
from benchmarks.models import GEOMETRIES, NAMES, SYNTHETIC, path_of
from benchmarks.report import Row
from benchmarks.sides import Side
from benchmarks.startup import first_run, first_token

SETTLE_SECONDS = 4.0  # in which a side still builds the tokenizer of a large vocabulary, in a thread
BUSY = 10.0  # percent of all processors that others may use; llama.cpp waits by spinning and suffers most from them


def compare_speed(name: str, options: argparse.Namespace, raw: dict[str, Any]) -> list[Row]:
    """Ours, peer, ours, peer ...; for the synthetic model also the memory bandwidth, each time right after ours."""
    path, context = path_of(name), options.prompt + options.generate + 64
    ours = Side("lacewing", path, options.threads, context, options.residency, "cpu")
    peer = Side("peer", path, options.threads, context, options.peer)
    work = {"prompt": options.prompt, "generate": options.generate}
    speeds: dict[str, list[dict[str, float]]] = {"ours": [], "peer": []}
    bandwidths = []
    with ours, peer:
        facts, peer_facts = ours.ask("facts"), peer.ask("facts")
        time.sleep(SETTLE_SECONDS)
        busy = psutil.cpu_percent(1.0)  # both sides are idle now
        for round_number in range(-1, options.rounds):  # the first one warms up
            for side, process in (("ours", ours), ("peer", peer)):
                speed = process.ask("speed", **work)
                if round_number < 0:
                    continue
                speeds[side].append(speed)
                if name == SYNTHETIC and side == "ours":
                    bandwidths.append(ours.ask("bandwidth", threads=options.threads)["bytes_per_second"])
    raw[name] = {"ours": speeds["ours"], "peer": speeds["peer"], "facts": facts, "peer_facts": peer_facts}
    raw[name] |= {"bandwidth": bandwidths, "busy": busy}
    rows = report.speed_rows(name, speeds["ours"], speeds["peer"])
    if bandwidths:
        rows.append(report.bandwidth_row(name, speeds["ours"], facts["bytes_per_token"], bandwidths))
    return rows


def measure_memory(name: str, options: argparse.Namespace, raw: dict[str, Any]) -> list[Row]:
    """A process for each residency, asked after it has worked."""
    rows = []
    for residency in ("eager", "lazy"):
        with Side("lacewing", path_of(name), options.threads, options.prompt + 64, residency, "cpu") as process:
            process.ask("speed", prompt=options.prompt, generate=4)
            memory = process.ask("memory")
        if memory["anonymous_bytes"] is not None:
            nbytes = memory["anonymous_bytes"] - memory["kv_bytes"]
            raw[f"{name} memory {residency}"] = memory
            rows.append(report.memory_row(name, residency, nbytes, memory["file_bytes"]))
    return rows


def measure(options: argparse.Namespace) -> tuple[dict[str, Any], list[Row], dict[str, Any]]:
    """Facts, rows and single measurements of everything that was asked for."""
    raw: dict[str, Any] = {}
    rows = [row for name in options.models for row in compare_speed(name, options, raw)]
    if SYNTHETIC in options.models:
        rows += measure_memory(SYNTHETIC, options, raw)
    if "smollm2" in options.models:
        raw["first_token"] = first_token(options.threads)
        rows.append(report.first_token_row(raw["first_token"]))
    if options.cold:
        raw["first_run"] = first_run(options.threads)
        rows += [report.first_run_row(name, seconds) for name, seconds in raw["first_run"].items()]
    if options.kl:
        raw["divergence"] = divergences(options.peer, options.kl, options.threads, options.peer_other)
        rows += [row for name, found in raw["divergence"].items() for row in report.divergence_rows(name, found)]
    one = raw[options.models[0]]
    work = f"prompt {options.prompt}, generate {options.generate}, {options.threads} threads, {options.rounds} rounds"
    facts = facts_of_machine(one["facts"], one["peer_facts"], work)
    busy = max(raw[name]["busy"] for name in options.models)
    if busy > BUSY:
        facts["not to be published"] = f"other programs used {busy:.0f}% of the processors"
    return facts, rows, raw


def facts_of_machine(ours: dict[str, Any], peer: dict[str, Any], work: str) -> dict[str, Any]:
    """What stands above a table: when, where, what, from what both sides say of themselves."""
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{_processor()}, {os.cpu_count()} logical CPUs, {platform.system()} {platform.machine()}",
        "ours": f"{ours['engine']}, {ours['device']}, Python {platform.python_version()}",
        "peer": f"{peer['engine']}, {peer['device']}",
        "work": f"{work}, weights {ours['residency']}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def model_names(text: str) -> list[str]:
    """Names of measured models, separated by commas. Raises ArgumentTypeError."""
    names = text.split(",")
    unknown = [name for name in names if name not in (*NAMES, *GEOMETRIES)]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"{unknown[0]!r} is not measured; there are {', '.join(dict.fromkeys((*NAMES, *GEOMETRIES)))}"
        )
    return names


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--peer", type=Path, required=True, metavar="DIRECTORY", help="where llama.cpp's shared libraries are")
    parser.add_argument("--models", type=model_names, default=list(NAMES), help=f"some of {','.join(NAMES)}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=128, help="tokens")
    parser.add_argument("--generate", type=int, default=32, help="tokens")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--residency", choices=("auto", "eager", "lazy"), default="auto", help="of our weights")
    parser.add_argument("--kl", type=int, default=0, metavar="TOKENS", help="compare the predictions over that many tokens of text")
    parser.add_argument(
        "--peer-other", type=Path, metavar="DIRECTORY", help="with --kl: llama.cpp's libraries of another CPU build"
    )
    parser.add_argument("--cold", action="store_true", help="time the first run, which compiles the kernels")
    parser.add_argument("--readme", action="store_true", help="also put the table into README.md, unless the machine was busy")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    for name in ("peer", "peer_other"):
        folder = getattr(options, name)
        if folder is not None and not any(folder.glob("*llama.*")):
            parser.error(
                f"{folder} does not hold llama.cpp's libraries; the first lines of benchmarks/compare.py say how to get them"
            )
        setattr(options, name, folder and folder.resolve())
    return options


def main() -> None:
    options = parse()
    facts, rows, raw = measure(options)
    report.publish(options, facts, rows, raw)


if __name__ == "__main__":
    main()
