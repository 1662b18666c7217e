"""Kernels neither read nor write outside what is theirs: weights and buffers between pages that must not be touched.

Kernels work with bare addresses, so that a mistake would be a crash or silent damage. Here it is a crash.
"""

import ctypes
import mmap
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lacewing.backends.batch import StepLimits
from lacewing.backends.cpu import CpuBackend, memory, pool, state, step
from lacewing.backends.cpu.isa import host_isa
from lacewing.backends.cpu.lowering import context, dense
from lacewing.backends.cpu.quants import FLOATS, GENERIC, TILES
from lacewing.formats import open_checkpoint
from lacewing.models import open_model
from lacewing.program.ops import Buffer, Linear
from lacewing.quants import by_name
from tests.backends.cpu.single_ops import Case, logits, normal, one_batch, random_weight
from tests.checkpoints import prompt_of, tiny
from tests.models.running import MappedWeight, mapped_weights, run
from tests.paged import with_pages

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="protects pages by the C library of Linux")
PAGE = mmap.PAGESIZE
_kept: list[mmap.mmap] = []


def guarded(nbytes: int, before: bool = False) -> np.ndarray:
    """uint8 (nbytes,) that ends at a page that cannot be touched; `before`: that begins behind one."""
    pages = -(-nbytes // PAGE) + 1
    memory = mmap.mmap(-1, pages * PAGE)
    _kept.append(memory)
    whole = np.frombuffer(memory, np.uint8)
    forbidden = int(whole.ctypes.data) + (0 if before else (pages - 1) * PAGE)
    if ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(forbidden), ctypes.c_size_t(PAGE), 0):
        raise OSError(ctypes.get_errno(), "mprotect")
    return whole[PAGE : PAGE + nbytes] if before else whole[(pages - 1) * PAGE - nbytes : (pages - 1) * PAGE]


@pytest.fixture(autouse=True)
def let_go() -> Iterator[None]:
    yield
    _kept.clear()


def guarded_weight(weight: MappedWeight, before: bool) -> MappedWeight:
    data = guarded(weight.data.size, before)
    data[:] = weight.data
    return MappedWeight(weight.name, weight.shape, weight.quant, data)


@pytest.mark.parametrize("quant", [*TILES, *FLOATS, *GENERIC])
def test_weights_are_read_within_their_bytes(quant: str) -> None:
    """As a linear, as the output matrix, as an embedding; sizes that leave the bytes at odd addresses."""
    elements = by_name(quant).block_elements
    for width in (elements, 3 * elements) if elements > 1 else (1, host_isa().lanes + 3):
        rows, y = host_isa().lanes + 3, Buffer("y", host_isa().lanes + 3).view()
        weight = random_weight("w", quant, rows, width)
        plain = Case((Linear(Buffer("x", width).view(), ("w",), (y,)),), normal(5, width), y, {"w": weight}).run(one_batch(5))
        for before in (False, True):
            hidden = guarded_weight(weight, before)
            case = Case((Linear(Buffer("x", width).view(), ("w",), (y,)),), normal(5, width), y, {"w": hidden})
            assert np.array_equal(case.run(one_batch(5)), plain)
            assert np.array_equal(logits(normal(rows, width), hidden, [1]), logits(normal(rows, width), weight, [1]))


def fenced(nbytes: int, dtype: type = np.uint8) -> np.ndarray:
    """In place of memory.aligned: on a cache line, with less than one of them before the forbidden page."""
    return guarded((nbytes + 63) // 64 * 64)[:nbytes].view(dtype)


class FencedReservation:
    """In place of memory.Reservation: the pages of a row's context and no more, before the forbidden page."""

    def __init__(self, needed: int, share: float):
        self.memory, self.nbytes = guarded(needed), needed


MODELS = ["gemma2 F16", "llama-wide Q4_K", "gemma3-wide Q6_K", "llama-biases F32", "phi3 Q8_0", "llama-wide IQ2_S"]


@pytest.mark.parametrize("model", MODELS)
def test_buffers_are_used_within_their_bytes(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full chunk, one token, and the last position of the last row."""
    name, quant = model.split()
    spec = open_model(open_checkpoint(tiny(name, "gguf", tmp_path, quant)), None)
    weights, limits, ids = mapped_weights(dict(spec.tensors)), StepLimits(37, 32, 2), prompt_of(name, 37)
    plain = with_pages(CpuBackend(2).compile(spec.program, weights, limits))
    expected = [run(plain, ids[:32]), run(plain, ids[32:], 32, row=0)]
    plain.close()
    for module in (memory, context, dense, step, pool):
        monkeypatch.setattr(module, "aligned", fenced)
    monkeypatch.setattr(state, "Reservation", FencedReservation)
    tight = with_pages(CpuBackend(3).compile(spec.program, weights, limits))
    monkeypatch.undo()
    for row in (0, 1):
        found = [run(tight, ids[:32], row=row), run(tight, ids[32:], 32, row=row)]
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
        assert np.array_equal(run(tight, ids[36:], 36, row=row), expected[1][-1:])
    tight.close()


@pytest.mark.parametrize("quant", ["Q4_0", "F32"])
def test_a_chunk_of_the_largest_size(quant: str, tmp_path: Path) -> None:
    spec = open_model(open_checkpoint(tiny("llama-wide", "gguf", tmp_path, quant)), None)
    weights, ids = mapped_weights(dict(spec.tensors)), prompt_of("llama-wide", 512)
    large, small = (with_pages(CpuBackend(2).compile(spec.program, weights, StepLimits(512, chunk))) for chunk in (512, 100))
    parts = [run(small, ids[s : s + 100], s) for s in range(0, 512, 100)]
    assert np.array_equal(run(large, ids), np.concatenate(parts))
    large.close()
    small.close()
