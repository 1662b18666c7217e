"""Many streams at once for a while, with cancels, disconnects, bad bodies and changes of the model.

On the CPU every finished answer is the one that its request gets alone; everywhere, no answer has a token that only another stream
allows, memory stays level, no page is lost, and no error is logged.
`LACEWING_SOAK_SECONDS` is the length of the long one, `LACEWING_SOAK_BACKEND` another backend than the CPU.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from tests.checkpoints import tiny
from tests.server.soak.asks import asks_of
from tests.server.soak.streams import Report, Stream, canaries, run_all

ROOT = Path(__file__).parents[3]
STREAMS = 64
BACKEND = os.environ.get("LACEWING_SOAK_BACKEND", "cpu")
GROWTH = 24 << 20  # bytes that the highest point of the last third may lie above the one before


class Host:
    """The server as a process of its own, its log in a file."""

    def __init__(self, folder: Path, *words: str):
        self.log, self.audits = folder / "log", folder / "audits"
        command = [sys.executable, "-m", "tests.server.soak.host", str(self.audits), *words, "--port", "0"]
        environment = {**os.environ, "PYTHONWARNINGS": "error", "PYTHONFAULTHANDLER": "1"}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://\S+(?=/v1)", line)
        assert found, (line, self.log.read_text())
        self.url = found[0]

    def memory(self) -> int:
        """Bytes that are its own: not of files."""
        return int(psutil.Process(self.process.pid).memory_full_info().uss) if not Path("/proc").exists() else self._anonymous()

    def _anonymous(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) << 10

    def metric(self, name: str) -> float:
        """The sum over all models."""
        lines = httpx.get(f"{self.url}/metrics", timeout=30).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((name + "{", name + " ")))

    def end(self) -> list[dict[str, Any]]:
        """What was found as each model left."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self.log.read_text()[-3000:]
        return [json.loads(line) for line in self.audits.read_text().splitlines()]


@pytest.fixture
def host(tmp_path: Path, smollm2_path: Path) -> Iterator[Host]:
    """Two models, not both of which fit as a whole, and a small one that leaves whenever nobody asks for it."""
    models = tmp_path / "models"
    models.mkdir()
    for name in "ab":
        shutil.copy(smollm2_path, models / f"{name}.gguf")
    tiny("llama-wide", "gguf", models, "Q4_0").rename(models / "c.gguf")
    flags = {"memory": "260MiB", "context": "2048", "kv-tokens": "2048", "max-sequences": "16", "queue": "256", "idle-unload": "1"}
    flags["backend"] = BACKEND
    host = Host(tmp_path, "--models-dir", str(models), *(word for name, value in flags.items() for word in (f"--{name}", value)))
    yield host
    host.process.kill()
    host.process.communicate()


def soak(host: Host, seconds: float, count: int) -> tuple[Report, list[int]]:
    """Run all streams; the report, and the server's memory every quarter of a second."""
    exact = BACKEND == "cpu"
    chance, began = random.Random(1), time.monotonic()
    with httpx.Client(base_url=host.url, timeout=240) as client:
        asks = {name: asks_of(name, chance, count) for name in "ac"}
        for ask in (ask for some in asks.values() for ask in some):
            ask.expected = ask.alone(client)
        asks["b"] = [replace(ask, body={**ask.body, "model": "b"}) for ask in asks["a"]]  # the same weights
        canary = canaries(client, "a", STREAMS)
    report, memory, over = Report(), [], threading.Event()

    def watch() -> None:
        while not over.wait(0.25):
            memory.append(host.memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    print(f"alone: {time.monotonic() - began:.1f} s", end="; ")
    try:
        now, phase = time.monotonic(), max(2.5, seconds / 24)
        streams = [
            Stream(at, host.url, asks, ("a" if at % 2 else "b", canary[at]), report, now, seconds, phase, exact)
            for at in range(STREAMS)
        ]
        asyncio.run(run_all(host.url, streams))
    finally:
        over.set()
        watcher.join()
    with httpx.Client(base_url=host.url, timeout=240) as client:
        for ask in (ask for name in "ac" for ask in asks[name]):
            found = ask.alone(client)
            assert not exact or found == ask.expected, f"after the soak, another answer to {ask}: {found!r}"
    return report, memory


def check(host: Host, report: Report, memory: list[int], level: bool) -> None:
    """`level`: it was long enough for the memory to be level."""
    until = time.monotonic() + 10
    while any(host.metric(f"lacewing_{name}") for name in ("requests_running", "requests_waiting", "sequences_running")):
        assert time.monotonic() < until, "requests of clients that have left are still there"
        time.sleep(0.1)
    changes = {name: host.metric(f"lacewing_{name}_total") for name in ("model_loads", "models_put_aside", "models_unloaded")}
    faults, audits, log = host.metric("lacewing_run_faults_total"), host.end(), host.log.read_text()
    third = len(memory) // 3
    slope = np.polyfit(np.arange(2 * third) / 240, np.array(memory[-2 * third :]) / 2**20, 1)[0]
    print(dict(report.done), f"{report.tokens} tokens", changes, f"{sum(each['preemptions'] for each in audits)} preempted",
          f"MiB by minute {[max(memory[at : at + 240]) >> 20 for at in range(0, len(memory), 240)]}",
          f"{slope:+.2f} MiB a minute in the last two thirds", f"{len(audits)} audits")  # fmt: skip
    assert not report.problems, "\n".join(report.problems)
    assert all(report.done[kind] for kind in ("whole", "streamed", "left", "gave up", "refused", "canary"))
    assert changes["model_loads"] > 3 and changes["model_loads"] >= changes["models_unloaded"] and not faults
    assert "Traceback" not in log and not re.search(r" (ERROR|CRITICAL) ", log), log[-5000:]
    assert audits and not any(each["leaked"] or each["running"] or each["waiting"] or "holders" in each for each in audits), audits
    assert not level or max(memory[2 * third :]) <= max(memory[: 2 * third]) + GROWTH, [
        each >> 20 for each in memory[:: max(1, third // 10)]
    ]


def test_a_short_one(host):
    check(host, *soak(host, 20, 1), level=False)


@pytest.mark.slow
def test_a_long_one(host):
    check(host, *soak(host, float(os.environ.get("LACEWING_SOAK_SECONDS", "600")), 4), level=True)
