"""The two engines that are compared, each in a process of its own that lives through all rounds.

A child takes one JSON object a line (`{"do": "speed", "prompt": 128, "generate": 32}`) and answers with one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from benchmarks.together import Together, all_logits
from lacewing.engine.engine import Engine
from lacewing.options import Sampling

ROOT = Path(__file__).resolve().parent.parent


class Runner(Protocol):
    """What both engines can do: run ids after those before, give the last row of logits, forget everything."""

    vocab_size: int

    def extend(self, ids: list[int]) -> np.ndarray: ...

    def forget(self) -> None: ...


class Side:
    """The parent's end. `arguments`: those of `main` below; `root`: the checkout whose code it runs."""

    def __init__(self, *arguments: object, root: Path = ROOT):
        self._arguments = [str(argument) for argument in arguments]
        command = [sys.executable, "-m", "benchmarks.sides", *self._arguments]
        paths = os.pathsep.join([str(root / "src"), str(root)])
        self._process = subprocess.Popen(
            command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}
        )

    def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        """One order and its answer. Raises RuntimeError when the child has died; it has said why on standard error."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **fields}) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise RuntimeError(f"{' '.join(self._arguments[:2])} ended with {self._process.wait()}")
        return json.loads(answer)  # type: ignore[no-any-return]

    def __enter__(self) -> Side:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.communicate()  # closes its input, which ends it


def speed(runner: Runner, prompt: int, generate: int) -> dict[str, float]:
    """Tokens/s of one prompt and of one continuation. Both engines get the same ids, and a greedy choice is made of each row."""
    ids = np.random.Generator(np.random.PCG64(1)).integers(0, runner.vocab_size, prompt + generate).tolist()
    runner.forget()
    began = time.perf_counter()
    runner.extend(ids[:prompt]).argmax()
    middle = time.perf_counter()
    for token in ids[prompt:]:
        runner.extend([token]).argmax()
    return {"prompt": prompt / (middle - began), "generate": generate / (time.perf_counter() - middle)}


def greedy(runner: Runner, prompt: int, generate: int) -> dict[str, float]:
    """Tokens/s of one prompt and of a greedy continuation, as the engine counts them."""
    assert isinstance(runner, Engine)
    ids = np.random.Generator(np.random.PCG64(1)).integers(0, runner.vocab_size, prompt).tolist()
    runner.forget()
    generation = runner.generate(ids, Sampling(temperature=0, max_tokens=generate))
    for _ in generation:
        pass
    return {"prompt": prompt / generation.stats.prompt_seconds, "generate": (generate - 1) / generation.stats.generate_seconds}


def logits(runner: Runner, ids: list[int], to: str, at_once: bool = True) -> dict[str, float]:
    """Float32 (T, V) into a file; row t is the prediction after ids[: t + 1]. `at_once`: in one run, where the engine is ours."""
    if isinstance(runner, Engine) and at_once:
        np.save(to, runner.logits(ids))
        return {}
    rows = np.lib.format.open_memmap(to, "w+", np.float32, (len(ids), runner.vocab_size))
    runner.forget()
    for row, token in zip(rows, ids, strict=True):
        row[:] = runner.extend([token])
    rows.flush()
    return {}


def bandwidth(runner: Runner, threads: int) -> dict[str, float]:
    """Bytes/s that this machine reads from memory."""
    from lacewing.backends.cpu.bandwidth import read_bandwidth

    return {"bytes_per_second": read_bandwidth(threads)}


def anonymous_bytes() -> int | None:
    """Memory of this process that no file backs; None where the system does not tell (only Linux does)."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:")), None)


def threads(runner: Runner, count: int) -> dict[str, float]:
    """Run on so many threads from now on, at most those that the side began with."""
    if isinstance(runner, Engine):
        from lacewing.backends.cpu.step import CpuStep

        assert isinstance(runner.step, CpuStep)
        runner.step.limit_threads(count)
    else:
        from benchmarks.peer import Peer

        assert isinstance(runner, Peer)
        runner.use_threads(count)
    return {}


ORDERS: dict[str, Callable[..., dict[str, float]]] = {
    "speed": speed,
    "greedy": greedy,
    "together": Together().measure,
    "all_logits": all_logits,
    "logits": logits,
    "threads": threads,
    "bandwidth": bandwidth,
}


def _lacewing(
    path: str, threads: int, context: int, residency: str, backend: str, rows: str = "1"
) -> tuple[Runner, dict[str, Any]]:
    import lacewing

    options: dict[str, Any] = {
        "backend": backend,
        "residency": residency,
        "context": context,
        "threads": threads,
        "sequences": int(rows),
    }
    model = lacewing.load(path, **options)
    facts = model.backend.facts()
    return model.engine, {
        "engine": f"lacewing {lacewing.__version__}",
        "device": f"{facts.name}, {' '.join(facts.features)}",
        "residency": model.weights.residency,
        "file_bytes": model.weights.nbytes,
        "bytes_per_token": model.spec.active_bytes,
        "kv_bytes": model.step.state_bytes,
    }


def _peer(path: str, threads: int, context: int, folder: str, rows: str = "1") -> tuple[Runner, dict[str, Any]]:
    from benchmarks.peer import Peer

    peer = Peer(Path(folder).resolve(), Path(path), threads, context, int(rows))
    library = next(Path(folder).glob("*llama.*")).name  # its name has the version
    return peer, {"engine": f"llama.cpp ({library})", "device": peer.system.rstrip(" |")}


def main() -> None:
    """`lacewing PATH THREADS CONTEXT RESIDENCY BACKEND [SEQUENCES]`, or `peer PATH THREADS CONTEXT DIRECTORY [SEQUENCES]`."""
    name, path, threads, context, *rest = sys.argv[1:]
    open_side = _lacewing if name == "lacewing" else _peer
    runner, facts = open_side(path, int(threads), int(context), *rest)
    for line in sys.stdin:
        order = json.loads(line)
        do = order.pop("do")
        if do == "facts":
            answer: dict[str, Any] = facts
        elif do == "memory":
            answer = {"anonymous_bytes": anonymous_bytes(), **facts}
        else:
            answer = ORDERS[do](runner, **order)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
