"""The scaling variants against their formulas, written out plainly."""

import math
from dataclasses import replace

import numpy as np
import pytest

from lacewing.models.rope import RopeConfig, rope_spec

PLAIN = RopeConfig(8, 10000.0)
FREQUENCIES = [1.0, 0.1, 0.01, 0.001]  # 10000 ** (-2i / 8)


def frequencies(rope, context=100):
    return rope_spec(rope, context, adjacent=False).frequencies


def test_plain_and_pairing():
    assert frequencies(PLAIN) == pytest.approx(FREQUENCIES)
    assert rope_spec(PLAIN, 100, adjacent=True).adjacent
    assert rope_spec(PLAIN, 100, adjacent=False).magnitude == 1


def test_linear_divides_and_divisors_divide():
    assert frequencies(replace(PLAIN, kind="linear", factor=4)) == pytest.approx([f / 4 for f in FREQUENCIES])
    assert frequencies(replace(PLAIN, divisors=(1, 2, 4, 1e30))) == pytest.approx([1.0, 0.05, 0.0025, 0], abs=1e-9)


def test_llama3_keeps_short_waves_and_stretches_long_ones():
    rope = replace(PLAIN, base=500000.0, kind="llama3", factor=8, low_factor=1, high_factor=4, original_context=64)
    for i, found in enumerate(frequencies(rope)):
        plain = 500000 ** (-2 * i / 8)
        turns = 64 * plain / (2 * math.pi)
        smooth = (turns - 1) / 3
        expected = plain if turns > 4 else plain / 8 if turns < 1 else (1 - smooth) * plain / 8 + smooth * plain
        assert found == pytest.approx(expected)


def test_llama3_without_a_middle_band():
    rope = replace(PLAIN, kind="llama3", factor=16, low_factor=1, high_factor=1, original_context=64)
    assert frequencies(rope) == pytest.approx([1.0, 0.1, 0.01 / 16, 0.001 / 16])


def test_yarn_ramps_between_the_bounds():
    rope = replace(PLAIN, kind="yarn", factor=4, original_context=64)
    spec = rope_spec(rope, 100, adjacent=False)
    assert spec.magnitude == pytest.approx(1 + 0.1 * math.log(4))
    # corr(32) < 0, so low = 0; corr(1) = 8 ln(64 / 2 pi) / (2 ln 10000) = 1.008, so high = 2
    assert spec.frequencies == pytest.approx([1.0, 0.1 * (0.5 + 0.5 / 4), 0.01 / 4, 0.001 / 4])
    untruncated = frequencies(replace(rope, truncate=False))
    assert untruncated[1] == pytest.approx(0.1 / 4, rel=0.05)


def test_longrope_takes_its_table_by_the_configured_context():
    rope = replace(PLAIN, kind="longrope", factor=4, original_context=64, short_divisors=(1.0,) * 4, long_divisors=(2.0,) * 4)
    assert frequencies(rope, context=64) == pytest.approx(FREQUENCIES)
    assert frequencies(rope, context=65) == pytest.approx([f / 2 for f in FREQUENCIES])
    assert rope_spec(rope, 64, False).magnitude == pytest.approx(math.sqrt(1 + math.log(4) / math.log(64)))
    assert rope_spec(replace(rope, magnitude=1.5), 64, False).magnitude == 1.5


def test_dynamic_raises_the_base_beyond_the_trained_context():
    rope = replace(PLAIN, kind="dynamic", factor=2, original_context=64)
    assert frequencies(rope, context=64) == pytest.approx(FREQUENCIES)
    base = 10000 * (2 * 128 / 64 - 1) ** (8 / 6)
    assert frequencies(rope, context=128) == pytest.approx([base ** (-2 * i / 8) for i in range(4)])


def test_frequencies_are_float32_values():
    assert all(f == float(np.float32(f)) for f in frequencies(replace(PLAIN, base=12345.6)))
