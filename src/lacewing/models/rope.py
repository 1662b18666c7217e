"""Rotary position frequencies: every scaling variant folded into one list, when the model is opened.

References: modeling_rope_utils.py of transformers for the formulas; llama.cpp for what a GGUF file says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lacewing.program.ops import RopeSpec

STILL = 1e30  # a divisor by which files say that a pair does not turn


@dataclass(frozen=True)
class RopeConfig:
    """What a checkpoint says about rotation. `kind` is none, linear, llama3, yarn, longrope, dynamic or proportional."""

    width: int  # rotated values of each head, even
    base: float = 10000.0
    kind: str = "none"
    factor: float = 1.0
    original_context: int = 0  # positions before scaling
    magnitude: float | None = None  # of cos and sin; None: from the formula of the kind
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    low_factor: float = 1.0
    high_factor: float = 4.0
    log_multiplier: float = 0.0  # mscale_all_dim of yarn, for architectures that scale attention by it
    query_beta: float = 0.0  # of a temperature by position, which some checkpoints keep among the rotation's numbers
    turning: float = 1.0  # proportional: the share of the pairs that turn, the first ones
    divisors: tuple[float, ...] = ()  # of the frequencies, made by the converter (llama3 in GGUF)
    short_divisors: tuple[float, ...] = ()
    long_divisors: tuple[float, ...] = ()


def rope_spec(rope: RopeConfig, context: int, adjacent: bool) -> RopeSpec:
    """The frequencies (radians a position, one a pair) for a session of at most `context` positions."""
    base, magnitude = rope.base, 1.0
    if rope.kind == "dynamic" and context > rope.original_context:
        stretch = rope.factor * context / rope.original_context - (rope.factor - 1)
        base *= stretch ** (rope.width / (rope.width - 2))
    plain = base ** (-np.arange(0, rope.width, 2) / rope.width)  # (width / 2,)
    if rope.kind == "linear":
        plain = plain / rope.factor
    elif rope.kind == "llama3":
        plain = plain / llama3_divisors(plain, rope)
    elif rope.kind == "yarn":
        plain, magnitude = yarn(plain, rope), yarn_magnitude(rope.factor)
    elif rope.kind == "longrope":
        plain = plain / np.array(rope.long_divisors if context > rope.original_context else rope.short_divisors)
        magnitude = longrope_magnitude(rope.factor, rope.original_context)
    elif rope.kind == "proportional":
        plain = np.where(np.arange(len(plain)) < int(rope.turning * rope.width // 2), plain / rope.factor, 0)
    if rope.divisors:
        divisors = np.array(rope.divisors)
        plain = np.where(divisors < STILL, plain / divisors, 0)
    frequencies = tuple(float(f) for f in plain.astype(np.float32))  # float32, as the models were trained with
    return RopeSpec(frequencies, magnitude if rope.magnitude is None else rope.magnitude, adjacent)


def llama3_divisors(frequencies: np.ndarray, rope: RopeConfig) -> np.ndarray:
    """1 for short waves, `factor` for long ones, a smooth way between; (width / 2,) like `frequencies`."""
    turns = rope.original_context * frequencies / (2 * math.pi)  # within the original context
    if rope.high_factor <= rope.low_factor:
        return np.where(turns < rope.low_factor, rope.factor, 1.0)
    t = np.clip((turns - rope.low_factor) / (rope.high_factor - rope.low_factor), 0, 1)
    return np.asarray(1 / ((1 - t) / rope.factor + t))


def yarn(frequencies: np.ndarray, rope: RopeConfig) -> np.ndarray:
    """High frequencies stay, low ones are divided by `factor`, with a linear ramp over the pairs between."""

    def pair(turns: float) -> float:  # the pair that turns so often within the original context
        return rope.width * math.log(rope.original_context / (turns * 2 * math.pi)) / (2 * math.log(rope.base))

    low, high = pair(rope.beta_fast), pair(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.width - 1)
    span = high - low if high != low else 0.001
    ramp = np.clip((np.arange(len(frequencies)) - low) / span, 0, 1)
    return np.asarray(frequencies / rope.factor * ramp + frequencies * (1 - ramp))


def yarn_magnitude(factor: float, scale: float = 1.0) -> float:
    return 1.0 + 0.1 * scale * math.log(factor) if factor > 1 else 1.0


def longrope_magnitude(factor: float, original_context: int) -> float:
    return math.sqrt(1 + math.log(factor) / math.log(original_context)) if factor > 1 else 1.0
