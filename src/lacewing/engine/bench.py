"""Measures an engine: prompt and generation tokens/s, medians of several runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lacewing.engine.engine import Engine, Request
from lacewing.engine.pages import pages_of
from lacewing.engine.stats import rate
from lacewing.errors import OptionError
from lacewing.options import Sampling
from lacewing.program.states import PAGE

PROMPT, GENERATE = 64, 24  # tokens of each of several sequences


@dataclass(frozen=True)
class Speed:
    """Tokens/s; medians."""

    prompt: float
    generate: float
    first_token_seconds: float


def measure(engine: Engine, prompt: int, generate: int, repeats: int = 3) -> Speed:
    """Run a made-up prompt of `prompt` tokens, then `generate` tokens after it, `repeats` times after one warm-up.

    Raises OptionError when they do not fit the context, and as `Engine.generate`.
    """
    check_counts(prompt, generate, engine.context)
    if repeats < 1:
        raise OptionError(f"repeats is {repeats}; it must be at least 1")
    ids = np.random.Generator(np.random.PCG64(1)).integers(0, engine.vocab_size, prompt).tolist()
    _times(engine, ids, min(generate, 2))  # pages weights in, finishes late compilation
    prompts, tokens = zip(*(_times(engine, ids, generate) for _ in range(repeats)), strict=True)
    first = statistics.median(prompts)
    return Speed(rate(prompt, first), rate(generate, statistics.median(tokens)), first)


def measure_sequences(engine: Engine, counts: Sequence[int], repeats: int = 3) -> dict[int, float]:
    """Tokens/s of so many sequences that generate together, each after a made-up prompt, with sampling; medians.

    Raises OptionError if they do not fit the context together, and as `Engine.generate`.
    """
    found = {}
    for count in counts:
        if context_of([count]) > engine.context:
            needed = f"{count} sequences need a context of {context_of([count])} tokens"
            raise OptionError(f"{needed}, not {engine.context}; leave `context` out, or measure fewer")
        _together(engine, count)  # pages weights in, finishes late compilation
        found[count] = statistics.median(_together(engine, count) for _ in range(repeats))
    return found


def context_of(counts: Sequence[int]) -> int:
    """The context that `measure_sequences` needs."""
    return pages_of(PROMPT + GENERATE + max(counts)) * PAGE * max(counts)


def check_sequences(text: str) -> list[int]:
    """Counts such as "1,2,4". Raises OptionError."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() and len(part) < 10 and 0 < int(part) <= 1024 for part in parts):
        raise OptionError(f"`sequences` is {text!r}; it must be numbers from 1 to 1024, such as 1,2,4,8")
    return [int(part) for part in parts]


def _together(engine: Engine, count: int) -> float:
    """Tokens/s from the first run in which all generate."""
    engine.forget()
    random = np.random.Generator(np.random.PCG64(count))
    prompts = random.integers(0, engine.vocab_size, (count, PROMPT)).tolist()
    longest = GENERATE + count  # one without a limit is let in only where there is room for a long answer
    streams = [engine.submit(Request(ids, Sampling(seed=number, max_tokens=longest))) for number, ids in enumerate(prompts)]
    while not all(stream.stats.generated_tokens for stream in streams):
        if not engine.advance():
            for stream in streams:
                next(stream, None)  # raises why it has none
    before, began = sum(stream.stats.generated_tokens for stream in streams), time.perf_counter()
    for _ in range(GENERATE):
        engine.advance()
    seconds = time.perf_counter() - began
    generated = sum(stream.stats.generated_tokens for stream in streams) - before
    for stream in streams:
        stream.close()
    return rate(generated, seconds)


def check_counts(prompt: int, generate: int, context: int) -> None:
    """Raise OptionError for what cannot be measured; a caller may ask before it loads a model."""
    if prompt < 1 or generate < 1 or prompt + generate > context:
        raise OptionError(f"cannot measure {prompt} + {generate} tokens in a context of {context}; both must be at least 1 and fit")


def _times(engine: Engine, prompt: list[int], count: int) -> tuple[float, float]:
    """Seconds for the prompt with the choice of a token, and for `count` greedy tokens after it, as an answer makes them."""
    engine.forget()
    generation = engine.generate(prompt, Sampling(max_tokens=count + 1, temperature=0))
    began = time.perf_counter()
    next(generation)
    middle = time.perf_counter()
    for _ in range(count):
        next(generation)
    return middle - began, time.perf_counter() - middle
