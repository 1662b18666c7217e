"""Measures an engine: prompt and generation tokens/s, medians of several runs."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import numpy as np

from lacewing.engine.engine import Engine
from lacewing.engine.stats import rate
from lacewing.errors import OptionError
from lacewing.options import Sampling


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
