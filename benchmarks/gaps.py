"""How long streams of `lacewing serve` pause while it reads a long prompt for somebody else.

    python -m benchmarks.gaps [--models smollm2,llama-1b] [--streams 4] [--tokens 600] [--prompt 7500] [--threads 2] [--json]

`--streams` answers of `--tokens` tokens run at once; when each has begun, one more request comes with about `--prompt` tokens. The
gaps are the times between two pieces of a stream from then until its first token: median, 99th percentile, longest. A token without
text, such as half a character, brings no piece: then a gap is as long as two runs of the engine.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any

from benchmarks.models import REAL, path_of
from benchmarks.server_cost import WORDS


def text_of(count: int, seed: int) -> str:
    """`count` words; no two seeds begin alike, so that no prefix is shared."""
    return " ".join(WORDS[(seed * 31 + at * (seed % 13 + 1)) % len(WORDS)] for at in range(count))


def stream(host: str, body: dict[str, Any], times: list[float]) -> int:
    """One answer; the time of each piece is added to `times`. The tokens of its prompt."""
    connection = http.client.HTTPConnection(host, timeout=900)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer, tokens = connection.getresponse(), 0
    if answer.status != 200:
        raise RuntimeError(f"The server answered {answer.status}: {answer.read(300)!r}")
    for line in answer:
        if b'"content":' in line:
            times.append(time.perf_counter())
        if b'"prompt_tokens":' in line:
            tokens = json.loads(line.removeprefix(b"data: "))["usage"]["prompt_tokens"]
    connection.close()
    return tokens


def ask(host: str, model: str, words: int, tokens: int, seed: int, times: list[float]) -> int:
    """A request of `words` words for `tokens` tokens."""
    body = {"model": model, "stream": True, "stream_options": {"include_usage": True}, "temperature": 0, "ignore_eos": True}
    return stream(host, body | {"max_tokens": tokens, "messages": [{"role": "user", "content": text_of(words, seed)}]}, times)


def gaps(streams: list[list[float]], began: float, ended: float) -> list[float]:
    """The times between two pieces of each stream, as far as they lie between `began` and `ended`, in seconds, sorted."""
    return sorted(
        after - before for times in streams for before, after in itertools.pairwise(times) if after > began and before < ended
    )


def measure(path: Path, options: argparse.Namespace) -> dict[str, float]:
    """Figures of one model."""
    command = [sys.executable, "-m", "lacewing", "serve", str(path), "--port", "0", "--quiet", "--backend", "cpu"]
    command += ["--threads", str(options.threads), *options.serve.split()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        host, model = urllib.parse.urlparse(re.findall(r"http://\S+", line)[0]).netloc, line.split()[1]
        ask(host, model, 100, 8, 1, [])  # loads, compiles and warms up
        streams: list[list[float]] = [[] for _ in range(options.streams)]
        threads = [
            threading.Thread(target=ask, args=(host, model, 20, options.tokens, 2 + number, times))
            for number, times in enumerate(streams)
        ]
        for thread in threads:
            thread.start()
        while not all(len(times) > 4 for times in streams):
            if not all(thread.is_alive() for thread in threads):
                raise RuntimeError("A stream ended before all had begun: give them more --tokens.")
            time.sleep(0.01)
        first: list[float] = []
        began = time.perf_counter()
        prompt = ask(host, model, options.prompt, 2, 99, first)
        running = sum(thread.is_alive() for thread in threads)
        for thread in threads:
            thread.join()
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
    found = gaps(streams, began, first[0])
    if not found:
        raise RuntimeError("The streams had ended before the long prompt was read: give them more --tokens.")
    return {
        "prompt": prompt,
        "first": first[0] - began,
        "still_running": running,
        "median": statistics.median(found),
        "p99": found[int(len(found) * 0.99)],
        "longest": found[-1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=REAL[0])
    for name, default in (("streams", 4), ("tokens", 600), ("prompt", 7500), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--serve", default="", help="more flags for lacewing serve, in one string")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = {name: measure(Path(name) if Path(name).is_file() else path_of(name), options) for name in options.models.split(",")}
    if options.json:
        return print(json.dumps(found))
    print(
        "| model | prompt | its first token, s | gap of the streams: median, s | p99 | longest | streams still running |\n"
        + "|---" * 7
        + "|"
    )
    for name, row in found.items():
        figures = f"{row['first']:.1f} | {row['median']:.3f} | {row['p99']:.3f} | {row['longest']:.3f} | {row['still_running']:.0f}"
        print(f"| {name} | {row['prompt']:.0f} | {figures} |")


if __name__ == "__main__":
    main()
