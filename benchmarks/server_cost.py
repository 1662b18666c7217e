"""What HTTP and scheduling cost `lacewing serve` for each token, beside the steps of the engine.

    python -m benchmarks.server_cost [--models smollm2,llama-1b] [--clients 8] [--requests 32] [--prompt 128] [--tokens 64]
           [--threads 2] [--json]

Each client streams one answer after the other. CPU times are those of the event loop's thread (HTTP, JSON, metrics), less what it
takes when nobody asks, and of the thread that drives the engine, outside its steps: scheduling, copies of pages whose beginning a
prompt shares, sampling, text. The last column is the part of the driving thread's time that is not spent in steps: what the server
loses of the engine's rate. A model may be a file: a tiny one has the Python run without a pause.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any

from benchmarks.models import REAL, SYNTHETIC, path_of

WORDS = ("time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school", "state", "family")

IDLE = 3.0  # seconds
PARTS = ("step", "copies", "sampling", "text")  # of the driver's work; what is left is scheduling
PARTS_TOLD = ("scheduling", *PARTS[1:])
_CALLS = 2000  # to learn what it takes to read the clocks


class Clocks:
    """CPU and wall time of parts of the driver's work, in seconds, by name; what it takes to read the clocks is left out."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._inside = self._around = 0.0  # seconds of CPU that a part which does nothing takes within it, and beside it
        self.begin()
        nothing = self.timed("", lambda: None)
        before = time.thread_time()
        for _ in range(_CALLS):
            nothing()
        whole = time.thread_time() - before
        self._inside = self.spent["_cpu"] / _CALLS
        self._around = whole / _CALLS - self._inside
        self.begin()

    def begin(self) -> None:
        self.spent = dict.fromkeys((f"{part}_{clock}" for part in ("", *PARTS) for clock in ("cpu", "wall", "reading")), 0.0)

    def timed(self, part: str, call: Any) -> Any:
        """`call`, whose time is that of `part`. Parts do not lie within each other."""
        cpu_of, wall_of, reading = f"{part}_cpu", f"{part}_wall", f"{part}_reading"

        def run(*arguments: Any, **named: Any) -> Any:
            cpu, wall = time.thread_time(), time.perf_counter()
            try:
                return call(*arguments, **named)
            finally:
                spent = self.spent
                spent[cpu_of] += time.thread_time() - cpu - self._inside
                spent[wall_of] += time.perf_counter() - wall
                spent[reading] += self._inside + self._around

        return run


def serve(path: str, file: Path, words: list[str]) -> None:
    """`lacewing serve` with clocks; a line of `file` for each time that the driver had work, and the loop's clock as it ends."""
    from lacewing import __main__
    from lacewing.assistant.decoder import AnswerDecoder
    from lacewing.assistant.driver import Driver
    from lacewing.engine import runs
    from lacewing.server.models import loading

    load, work, clocks = loading.load, Driver._work, Clocks()

    def loaded(*arguments: Any) -> Any:
        model = load(*arguments)
        step = model.engine.step
        step.run, step.choose = clocks.timed("step", step.run), clocks.timed("step", step.choose)
        step.copy = clocks.timed("copies", step.copy)
        return model

    def driven(self: Driver) -> None:
        clocks.begin()
        cpu, wall = time.thread_time(), time.perf_counter()
        work(self)
        clocks.spent |= {"cpu": time.thread_time() - cpu, "wall": time.perf_counter() - wall}
        self.engine.forget()  # what comes next finds no prompt of before, and memory that the system has handed out
        with file.open("a") as out:
            out.write(json.dumps(clocks.spent) + "\n")

    loading.load, Driver._work = loaded, driven  # type: ignore[method-assign]
    for name in ("_known", "_pick", "pick_all"):
        setattr(runs, name, clocks.timed("sampling", getattr(runs, name)))
    for name in ("push", "finish"):
        setattr(AnswerDecoder, name, clocks.timed("text", getattr(AnswerDecoder, name)))
    sys.argv = ["lacewing", "serve", path, "--port", "0", "--quiet", "--backend", "cpu", *words]
    __main__.main()


def loop_seconds(pid: int) -> float:
    """CPU time of the main thread of a process, which has the event loop."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


def stream(host: str, body: dict[str, Any]) -> int:
    """One answer, read as it comes; its tokens."""
    connection = http.client.HTTPConnection(host, timeout=900)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    tokens = 0
    for line in connection.getresponse():
        if b'"completion_tokens":' in line:
            tokens = json.loads(line.removeprefix(b"data: "))["usage"]["completion_tokens"]
    connection.close()
    return tokens


def load(host: str, model: str, options: argparse.Namespace, first: int) -> int:
    """All requests, from so many clients; the tokens of their answers. `first`: of their numbers; each makes a prompt."""
    todo, tokens = list(range(first, first + options.requests)), []

    def work() -> None:
        while todo:
            number = todo.pop()
            text = " ".join(WORDS[(number * 7919 + at * (number % 13 + 1)) % len(WORDS)] for at in range(options.prompt))
            body = {"model": model, "stream": True, "stream_options": {"include_usage": True}, "temperature": 0, "ignore_eos": True}
            tokens.append(stream(host, body | {"max_tokens": options.tokens, "messages": [{"role": "user", "content": text}]}))

    threads = [threading.Thread(target=work) for _ in range(options.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(tokens)


def measure(path: Path, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Figures of one model; times a token are microseconds."""
    file = folder / "spent"
    file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.server_cost", "--serve", str(path), str(file), "--threads", str(options.threads)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        host, model = urllib.parse.urlparse(re.findall(r"http://\S+", line)[0]).netloc, line.split()[1]
        load(host, model, options, 0)  # loads, compiles and warms up
        while not file.exists():  # the driver rests
            time.sleep(0.1)
        file.unlink()
        idle = loop_seconds(process.pid)
        time.sleep(IDLE)
        idle = (loop_seconds(process.pid) - idle) / IDLE
        began, before = time.perf_counter(), loop_seconds(process.pid)
        tokens = load(host, model, options, options.requests)
        seconds, loop = time.perf_counter() - began, loop_seconds(process.pid) - before
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
    spent = [json.loads(line) for line in file.read_text().splitlines()]
    total = {name: sum(each[name] for each in spent) for name in spent[0]}
    parts = {part: 1e6 * total[f"{part}_cpu"] / tokens for part in PARTS}
    driver = 1e6 * (total["cpu"] - sum(total[f"{part}_reading"] for part in PARTS)) / tokens - parts.pop("step")
    return {
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "loop_us": 1e6 * (loop - idle * seconds) / tokens,
        "driver_us": driver,
        "scheduling_us": driver - sum(parts.values()),
        **{f"{part}_us": each for part, each in parts.items()},
        "outside_share": 1 - total["step_wall"] / total["wall"],
    }


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        return serve(sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=f"{REAL[0]},{SYNTHETIC}")
    for name, default in (("clients", 8), ("requests", 32), ("prompt", 128), ("tokens", 64), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        found = {
            name: measure(Path(name) if Path(name).is_file() else path_of(name), options, Path(folder))
            for name in options.models.split(",")
        }
    if options.json:
        return print(json.dumps(found))
    heads = ("model", "tokens/s", "event loop, us a token", *PARTS_TOLD, "driver outside steps")
    print(f"| {' | '.join(heads)} |\n" + "|---" * len(heads) + "|")
    for name, row in found.items():
        costs = " | ".join(f"{row[f'{part}_us']:.0f}" for part in ("loop", *PARTS_TOLD))
        print(f"| {name} | {row['tokens_per_second']:.0f} | {costs} | {row['outside_share']:.1%} |")


if __name__ == "__main__":
    main()
