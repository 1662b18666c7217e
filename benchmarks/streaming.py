"""A mixture of experts that is larger than memory: lazy beside streamed, by turns, each in a memory group of its own.

    python -m benchmarks.streaming FILE --memory 6GiB [--sides lazy,streamed,packed] [--rounds 3] [--prompt 32] [--generate 48]
           [--reserve 512MiB] [--routes uniform|FILE.jsonl] [--json]

Every run is a process in a control group that may use so much memory, the page cache included, and begins with none of the file
in the page cache. "streamed" reads the model's own files, "packed" the pack that `lacewing pack` has made. Tokens are random, so
that answers of random weights do not fall into loops whose experts stay. Streamed weights get the limit less `--reserve` (the
interpreter and its libraries). `--routes` overrides what routers choose: each expert alike, or a trace with an object of
{"layers": [[ids], ...]} a token; prompts are routed by the model.
Prints tokens/s, what a token read from the disk, and the share of the disk's speed, measured in reads of experts before and after
each run. Needs the right to make control groups (root).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lacewing.options import format_bytes, parse_bytes

if TYPE_CHECKING:
    from lacewing.weights.experts import ExpertCache

WARM = 16  # tokens before the clock starts
V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[Path]:
    """A control group below that of this process."""
    version = 1 if V1.is_dir() else 2
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    own = next(line.split(":", 2)[2] for line in lines if (":memory:" in line if version == 1 else line.startswith("0::")))
    folder = (V1 if version == 1 else V2) / own.lstrip("/") / f"lacewing-{os.getpid()}"
    folder.mkdir()
    try:
        (folder / ("memory.limit_in_bytes" if version == 1 else "memory.max")).write_text(str(limit))
        yield folder
    finally:
        for _ in range(50):  # pages of the ended process may still be counted
            with contextlib.suppress(OSError):
                folder.rmdir()
                break
            time.sleep(0.1)


def forget(path: Path) -> None:
    """Have the system drop the file, and its pack, from its page cache."""
    from lacewing.weights.experts.pack import pack_places

    for each in (path, *pack_places(path)):
        if each.exists():
            with each.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def disk(path: Path, side: str) -> float:
    """Bytes/s, in reads of experts as the side makes them."""
    from lacewing.options import LoadOptions
    from lacewing.placement.info import ModelInfo
    from lacewing.placement.packing import find_pack_of, plan_of
    from lacewing.weights.experts.probe import measure

    info = ModelInfo(path, LoadOptions(), warm=False)
    plan = plan_of(info)
    if side != "packed":
        return measure(plan.sources, info.checkpoint.identities, 2.0).rate
    found = find_pack_of(info, plan)
    if found.pack is None:
        raise SystemExit(found.problem or "there is no pack; `lacewing pack` makes one")
    return measure(found.pack.layers, {found.pack.path: found.pack.identity}, 2.0).rate


class Routes:
    """Choices that replace those of a CPU step's routers: a bias that nothing but the chosen experts have."""

    def __init__(self, step: Any, routes: str | None):
        from lacewing.backends.cpu.arguments import ROUTE

        self.biases: list[np.ndarray] = []
        self.active = 0
        lines = [] if routes in (None, "uniform") else Path(routes).read_text().splitlines()
        self._trace = [json.loads(line)["layers"] for line in lines]
        self._random, self._token = np.random.Generator(np.random.PCG64(7)), 0
        if routes is None:
            return
        for op, arguments in zip(step.ops, step._arguments, strict=True):
            if op.layout is ROUTE:
                self.active = int(arguments[ROUTE.active // 8])
                self.biases.append(np.zeros(int(arguments[ROUTE.experts // 8]) + 64, np.float32))
                arguments[ROUTE.bias // 8] = self.biases[-1].ctypes.data

    def next(self) -> None:
        """Before each token."""
        for layer, bias in enumerate(self.biases):
            bias[:] = 0
            if self._trace:
                chosen = self._trace[self._token % len(self._trace)][layer]
                if len(chosen) != self.active:
                    raise SystemExit(f"the trace has {len(chosen)} experts a token; the model uses {self.active}")
            else:
                chosen = self._random.permutation(len(bias) - 64)[: self.active]
            bias[chosen] = 1e6
        self._token += 1


def run(path: Path, residency: str, memory: int, prompt: int, generate: int, threads: int, by: str | None) -> dict[str, Any]:
    """In the group already: tokens/s and bytes read."""
    import lacewing
    from lacewing.weights.experts import pack

    if residency == "streamed":
        pack.pack_places = lambda _: ()  # type: ignore[assignment,return-value]  # that of another side is not for this one
    residency = "streamed" if residency == "packed" else residency
    with lacewing.load(path, backend="cpu", residency=residency, memory=memory, context=1024, threads=threads) as model:
        ids = (
            np.random.Generator(np.random.PCG64(os.getpid()))
            .integers(0, model.engine.vocab_size, prompt + WARM + generate)
            .tolist()
        )
        began = time.perf_counter()
        model.engine.extend(ids[:prompt])
        middle = time.perf_counter()
        routes = Routes(model.step, by)
        for token in ids[prompt : prompt + WARM]:
            routes.next()
            model.engine.extend([token])
        before, started, cpu = _read(), time.perf_counter(), time.process_time()
        streamed = model.weights.experts
        use = _use(streamed)
        for token in ids[prompt + WARM :]:
            routes.next()
            model.engine.extend([token])
        seconds = time.perf_counter() - started
        found = {
            "prompt": prompt / (middle - began), "generate": generate / seconds, "bytes": (_read() - before) / generate,
            "cpu": (time.process_time() - cpu) / generate,
        }  # fmt: skip
        if streamed is not None:
            hits, misses, waited, reads = (after - before for after, before in zip(_use(streamed), use, strict=True))
            found |= {"hit_rate": hits / max(1, hits + misses), "waited": waited / seconds, "reads": reads / generate}
            found |= {"direct": streamed.disk.way.direct, "readers": streamed.disk.way.threads}
    return found


def _use(streamed: ExpertCache | None) -> tuple[float, ...]:
    """So far: hits, misses, seconds waited, reads."""
    if streamed is None:
        return (0.0,) * 4
    use = streamed.statistics
    return use.hits, use.misses, use.waited, use.reads


def _read() -> int:
    """Bytes that this process has had read from the disk."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def child(arguments: argparse.Namespace, side: str) -> dict[str, Any]:
    forget(arguments.file)
    before = disk(arguments.file, side)
    with memory_group(arguments.memory) as group:
        command = [sys.executable, "-m", "benchmarks.streaming", str(arguments.file), "--child", side]
        for name in ("memory", "reserve", "prompt", "generate", "threads"):
            command += [f"--{name}", str(getattr(arguments, name))]
        command += ["--routes", arguments.routes] if arguments.routes else []
        script = f'echo $$ > {group}/cgroup.procs; exec "$@"'
        done = subprocess.run(["sh", "-c", script, "sh", *command], capture_output=True, text=True, check=False)
        peak = next((group / name for name in ("memory.max_usage_in_bytes", "memory.peak") if (group / name).exists()), None)
        most = int(peak.read_text()) if peak else 0
    if done.returncode:
        return {"side": side, "problem": done.stderr.strip().splitlines()[-1:] or f"it ended with {done.returncode}"}
    after = disk(arguments.file, side)
    return {"side": side, "disk": (before + after) / 2, "peak": most, **json.loads(done.stdout)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--memory", type=parse_bytes, default="6GiB")
    parser.add_argument("--reserve", type=parse_bytes, default="512MiB")
    parser.add_argument("--sides", default="lazy,streamed")
    for name, value in (("rounds", 3), ("prompt", 32), ("generate", 48), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--routes")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.child:
        memory = arguments.memory - arguments.reserve
        sizes = arguments.prompt, arguments.generate, arguments.threads
        print(json.dumps(run(arguments.file, arguments.child, memory, *sizes, arguments.routes)))
        return
    found = [child(arguments, side) for _ in range(arguments.rounds) for side in arguments.sides.split(",")]
    if arguments.json:
        print(json.dumps(found))
        return
    print(f"{arguments.file.name}, {format_bytes(arguments.file.stat().st_size)}, in {format_bytes(arguments.memory)}")
    for side in arguments.sides.split(","):
        runs = [one for one in found if one["side"] == side and "problem" not in one]
        for problem in [one["problem"] for one in found if one["side"] == side and "problem" in one]:
            print(f"{side}: {problem}")
        if runs:
            print(_line(side, runs))


def _line(side: str, runs: list[dict[str, Any]]) -> str:
    middle = {key: statistics.median(one[key] for one in runs) for key in runs[0] if key != "side"}
    bound = statistics.median(one["disk"] / one["bytes"] for one in runs)
    share = statistics.median(one["generate"] * one["bytes"] / one["disk"] for one in runs)
    text = (
        f"{side}: generate {middle['generate']:.2f} tokens/s ({min(one['generate'] for one in runs):.2f} to "
        f"{max(one['generate'] for one in runs):.2f}), prompt {middle['prompt']:.2f}; {format_bytes(middle['bytes'])} a token, "
        f"disk {middle['disk'] / 1e9:.2f} GB/s, bound {bound:.2f} tokens/s, {share:.0%} of it; peak {format_bytes(middle['peak'])}"
    )
    if "hit_rate" not in middle:
        return text
    way = f"{middle['reads']:.0f} reads a token, {'direct' if middle['direct'] else 'buffered'} by {middle['readers']:.0f} threads"
    return f"{text}; hit rate {middle['hit_rate']:.0%}, waited {middle['waited']:.0%}, {way}"


if __name__ == "__main__":
    main()
