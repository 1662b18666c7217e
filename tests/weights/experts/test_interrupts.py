"""Ctrl-C comes wherever Python is. Kernels then find no expert's bytes where another's were, and later runs go on."""

import ctypes
import sys

import numpy as np
import pytest

from lacewing.weights.experts import layer as layer_module
from tests.weights.experts.test_cache import BYTES, EXPERTS, content, fetch, made, path  # noqa: F401  # two are fixtures

LINES = 400  # more than a run has


def check_all(layer, content):  # noqa: F811
    """What kernels read of all experts that they are told of; and they are told of all that count as there."""
    for at, addresses in zip((33, 33 + EXPERTS * BYTES), layer.addresses.values(), strict=True):
        assert addresses[layer.in_ram].all()
        for expert in np.flatnonzero(addresses).tolist():
            found = np.frombuffer(ctypes.string_at(int(addresses[expert]), BYTES), np.uint8)
            np.testing.assert_array_equal(found, content[at + BYTES * expert :][:BYTES])


@pytest.mark.parametrize("few", [True, False])
def test_an_interrupt_at_any_line(path, content, few):  # noqa: F811
    left = losses = 0  # lines until it comes; how often it cost many slots

    def interrupt(frame, event, argument):
        nonlocal left
        if frame.f_code.co_filename != layer_module.__file__:
            return None
        left -= event == "line"
        if event == "line" and not left:
            raise KeyboardInterrupt
        return interrupt

    for line in range(1, LINES):
        cache = made(path, shared=8)
        layer = cache.layers[0]
        for chosen in ([0, 1], [2, 3], [1, 2]):
            fetch(layer, chosen)
        layer.expect([7, 4, 5])
        left = line
        sys.settrace(interrupt)
        try:
            fetch(layer, [4, 2, 5, 6], few)
            break
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        for chosen in ([8, 9], [0, 10], [4, 5], [11, 6], [7, 3], [1, 2], [4, 9, 10], list(range(EXPERTS))):
            fetch(layer, chosen, few and len(chosen) < 4)
            check_all(layer, content)
        losses += len(cache.pool.take(8)) < 6  # those of guesses that are just being taken may be lost
        cache.close()
    assert 100 < line < LINES - 1 and losses <= 2  # between the last line of who makes a wave and the next of who takes it
