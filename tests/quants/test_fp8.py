"""The small floats of Hugging Face checkpoints against values known on paper."""

import numpy as np
import pytest

from lacewing.quants import by_name


@pytest.mark.parametrize(
    ("byte", "value"),
    [(0x00, 0.0), (0x01, 2.0**-9), (0x07, 7 * 2.0**-9), (0x08, 2.0**-6), (0x38, 1.0), (0x39, 1.125), (0x40, 2.0), (0x7E, 448.0),
     (0xB8, -1.0), (0xFE, -448.0), (0x81, -(2.0**-9))],
)  # fmt: skip
def test_values(byte, value):
    assert by_name("F8_E4M3").dequantise(np.array([byte], np.uint8)) == [value]


def test_four_bits_and_powers_of_two():
    pairs = by_name("F4_E2M1").dequantise(np.array([0x10, 0x32, 0x54, 0x76, 0x98, 0xFE], np.uint8))
    assert pairs.tolist() == [0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -4, -6]
    assert by_name("F8_E8M0").dequantise(np.array([0, 126, 127, 130, 254], np.uint8)).tolist() == [2.0**-127, 0.5, 1, 8, 2.0**127]


def test_the_two_that_are_not_numbers():
    values = by_name("F8_E4M3").dequantise(np.arange(256, dtype=np.uint8))
    assert np.flatnonzero(np.isnan(values)).tolist() == [0x7F, 0xFF]
    assert (np.diff(values[:0x7F]) > 0).all()
    np.testing.assert_array_equal(values[0x80:0xFF], -values[:0x7F])
