"""Changes of the model in a conversation: `python -m benchmarks.swaps FILE OTHER [--tokens 3300] [--swaps 50] [--rounds 5]`.

Time: a conversation of so many tokens with FILE, `/model OTHER`, `/model -`, then a new message up to the first piece of its
answer; beside it the next message without a change in between. Memory: the process after the first and after the last of many
swaps, with the other model parked and without. Each part runs in a process of its own.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from lacewing.chat.services.opening import open_session
from lacewing.chat.services.swap import change_model
from lacewing.chat.session.session import Session
from lacewing.options import LoadOptions, Sampling
from lacewing.weights.machine import process_bytes

TEXT = Path(__file__).with_name("text.txt")
GOAL_MS, GOAL_GROWTH = 100, 0.05
SETTLE_SECONDS = 2.0  # in which the tokenizer of a large vocabulary is still built, in a thread, and takes memory meanwhile


def begin(path: str, tokens: int) -> Session:
    """A conversation about a text of at least so many tokens, with one answer."""
    sampling = Sampling(temperature=0, max_tokens=4)
    session = open_session(path, LoadOptions("cpu", context=2 * tokens + 512, residency="eager"), sampling)
    text = TEXT.read_text(encoding="utf-8")
    each = len(session.model.tokenizer.encode(text))
    list(session.say(text * (tokens // each) + text[: len(text) * (tokens % each) // each + 64]))
    return session


def first_piece(session: Session) -> float:
    """Milliseconds from a short message to the first piece of its answer."""
    began = time.perf_counter()
    answer = session.say("Go on.")
    next(answer)
    found = 1000 * (time.perf_counter() - began)
    for _ in answer:
        pass
    return found


def back(path: str, other: str, tokens: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of `/model -`, of the message after it, and of one with no change before it."""
    session = begin(path, tokens)
    found: dict[str, list[float]] = {"change": [], "message": [], "without": []}
    change_model(session, other)
    for _ in range(rounds):
        began = time.perf_counter()
        change_model(session, "-")
        found["change"].append(1000 * (time.perf_counter() - began))
        found["message"].append(first_piece(session))
        found["without"].append(first_piece(session))
        change_model(session, "-")
    session.close()
    return found


def memory(path: str, other: str, swaps: int, parked: bool) -> list[int]:
    """Bytes of the process after the first swap to each model, then after the last to each."""
    session, found = begin(path, 64), []
    for count in range(swaps):
        if not parked:
            session.drop_parked()
        change_model(session, path if count % 2 else other)
        if count < 2 or count >= swaps - 2:
            time.sleep(SETTLE_SECONDS)
            gc.collect()
            found.append(process_bytes())
    session.close()
    return found


def apart(*words: object) -> object:
    """What this program prints in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.swaps", *map(str, words)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="/model - and the memory of many swaps.")
    parser.add_argument("file")
    parser.add_argument("other")
    parser.add_argument("--tokens", type=int, default=3300)
    parser.add_argument("--swaps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("back", "parked", "anew"), help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    if given.only == "back":
        print(json.dumps(back(given.file, given.other, given.tokens, given.rounds)))
    elif given.only:
        print(json.dumps(memory(given.file, given.other, given.swaps, given.only == "parked")))
    else:
        report(given)


def report(given: argparse.Namespace) -> None:
    flags = [f"--{name}={getattr(given, name)}" for name in ("tokens", "swaps", "rounds")]
    times = apart(given.file, given.other, "--only=back", *flags)
    assert isinstance(times, dict)
    middle = {name: statistics.median(values) for name, values in times.items()}
    print(
        f"/model - with {given.tokens} cached tokens: {middle['change']:.0f} ms, then {middle['message']:.0f} ms to the first "
        f"piece of the answer to a new message ({middle['without']:.0f} ms without a change); goal: {GOAL_MS} ms more than without"
    )
    for name in ("parked", "anew"):
        found = apart(given.file, given.other, f"--only={name}", *flags)
        assert isinstance(found, list)
        growth = max(last / first - 1 for first, last in zip(found[:2], found[-2:], strict=True))
        sizes = ", ".join(
            f"{first / 2**20:.0f} to {last / 2**20:.0f} MiB" for first, last in zip(found[:2], found[-2:], strict=True)
        )
        print(f"{given.swaps} swaps, {name}: {sizes}; {growth:+.1%}, goal: at most {GOAL_GROWTH:.0%}")


if __name__ == "__main__":
    main()
