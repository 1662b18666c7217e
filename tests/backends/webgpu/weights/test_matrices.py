"""Uploads: pieces, parts, shards, padding, what is left after a failure, and how much of the host's memory they take."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import PropertyMock, patch

import numpy as np
import pytest

from lacewing.backends.batch import StepLimits
from lacewing.backends.gpu.layouts import LAYOUTS
from lacewing.backends.webgpu.device.device import Device
from lacewing.backends.webgpu.weights.matrices import Matrix, Uploader
from lacewing.errors import Cancelled, OutOfMemoryError, UnsupportedModelError
from lacewing.program.ops import Buffer, Embed, Linear
from tests.backends.cpu.single_ops import Case, MappedWeight, dequantised, floats, normal, one_batch, random_weight
from tests.backends.webgpu.single_ops import CODES, FLOATS, backend, error, run_step


@contextmanager
def uploads(**changes: Any) -> Iterator[Uploader]:
    """An uploader, after which nothing but what it made is left on the device."""
    device = backend(FLOATS).device
    before = device.buffers
    uploader = Uploader(device, **changes)
    try:
        yield uploader
    finally:
        uploader.close()
        device.free_since(before)


def planes(matrix: Matrix) -> list[bytes]:
    """The bytes of each plane, all shards together."""
    device, found = backend(FLOATS).device, [b""] * len(matrix.layout.planes)
    for shard in matrix.shards:
        for index, (plane, part) in enumerate(zip(matrix.layout.planes, shard.planes, strict=True)):
            found[index] += device.read(part.buffer, 0, plane.nbytes(shard.rows * matrix.groups)).tobytes()
    return found


def rows_of(weight: MappedWeight, start: int, stop: int) -> MappedWeight:
    size = weight.data.nbytes // weight.shape[0]
    return replace(
        weight, name=f"rows from {start}", shape=(stop - start, weight.shape[1]), data=weight.data[start * size : stop * size]
    )


@pytest.mark.parametrize("quant", LAYOUTS)
def test_pieces_and_parts_make_the_same_planes(quant: str) -> None:
    """37 rows of three weights, the second in places of their own, a few rows a piece."""
    whole = random_weight("w", quant, 37, 768, seed=1)
    first, second, third = rows_of(whole, 0, 10), rows_of(whole, 10, 30), rows_of(whole, 30, 37)
    second = replace(second, shape=(4, 5, 768), pieces=tuple(second.data.reshape(4, -1)))
    with uploads() as uploader:
        expected = planes(uploader.matrix([whole]))
    with patch("lacewing.backends.webgpu.weights.staging.STAGING_BYTES", 2**14), uploads() as uploader:
        matrix = uploader.matrix([first, second, third])
        assert (matrix.rows, matrix.columns, matrix.groups) == (37, 768, 24)
        assert planes(matrix) == expected


@pytest.mark.parametrize("width", [32, 96, 160, 40])
def test_rows_that_are_no_whole_runs(width: int) -> None:
    whole = random_weight("w", "F16" if width == 40 else "Q5_0", 77, width, seed=2)
    with uploads() as uploader:
        expected = planes(uploader.matrix([whole]))
    with patch("lacewing.backends.webgpu.weights.staging.STAGING_BYTES", 2**11), uploads() as uploader:
        matrix = uploader.matrix([rows_of(whole, 0, 33), rows_of(whole, 33, 77)])
        assert matrix.groups == -(-width // 32) and planes(matrix) == expected


@pytest.mark.parametrize(("quant", "width"), [("Q4_K", 256), ("Q8_0", 96), ("F32", 40)])
def test_shards(quant: str, width: int) -> None:
    """A plane beyond what a binding shows is cut between rows, between experts where they must not be cut."""
    whole = random_weight("w", quant, 120, width, seed=3)
    with patch.object(Device, "largest_buffer", new_callable=PropertyMock, return_value=8192), uploads() as uploader:
        matrix = uploader.matrix([whole])
        assert len(matrix.shards) > 1 and matrix.shards[0].first == 0
        assert sum(shard.rows for shard in matrix.shards) == 120
        for shard, after in zip(matrix.shards, matrix.shards[1:], strict=False):
            assert shard.first + shard.rows == after.first and shard.rows * matrix.groups % 8 == 0
        assert all(part.buffer.size <= 8192 for shard in matrix.shards for part in shard.planes)
        found = planes(matrix)
        by_fives = uploader.matrix([whole], indivisible=5)
        assert all(shard.first % 5 == 0 for shard in by_fives.shards)
    with uploads() as uploader:
        one = planes(uploader.matrix([whole]))
    assert [part[: len(other)] for part, other in zip(found, one, strict=True)] == one


@pytest.mark.parametrize("quant", [*LAYOUTS, "IQ3_S", "TQ2_0"])
@pytest.mark.parametrize("turned", [False, True])
def test_experts_that_take_the_places_of_others(quant: str, turned: bool) -> None:
    """8 rows an expert, in stacks of one shard and of several, in one piece and in many: as if there from the start."""
    rows, width = (256, 256) if turned else (8, 256)
    experts = [random_weight("w", quant, rows, width, seed=seed) for seed in range(6)]

    def stack(chosen: list[int]) -> MappedWeight:
        data = np.concatenate([experts[expert].data for expert in chosen])
        return replace(experts[0], shape=(len(chosen), rows, width), data=data)

    each = width if turned else rows
    for largest, piece in ((2**30, 2**25), (2**19, 2**15) if turned else (2**14, 2**12)):
        with (
            patch.object(Device, "largest_buffer", new_callable=PropertyMock, return_value=largest),
            patch("lacewing.backends.webgpu.weights.staging.STAGING_BYTES", piece),
            uploads() as uploader,
        ):
            wanted = planes(uploader.matrix([stack([4, 1, 5, 3])], each, turned))
            matrix = uploader.matrix([stack([0, 1, 2, 3])], each, turned)
            assert quant != "F32" or len(matrix.shards) == (1 if largest == 2**30 else 2)
            for expert, place in ((4, 0), (5, 2)):
                uploader.refill(matrix, stack([expert]), place, turned)
            assert planes(matrix) == wanted


def test_what_cannot_be_cut_is_refused() -> None:
    before = backend(FLOATS).device.allocated
    small, uncut = PropertyMock(return_value=8192), pytest.raises(OutOfMemoryError, match=r"w cannot be cut into the 8\.0 KiB that")
    with patch.object(Device, "largest_buffer", new=small), uploads() as uploader, uncut:
        uploader.matrix([random_weight("w", "Q8_0", 120, 256)], indivisible=120)
    long = pytest.raises(UnsupportedModelError, match=r"weight w: a row takes 8\.0 KiB, more than the GPU backend moves at once")
    with patch("lacewing.backends.webgpu.weights.staging.STAGING_BYTES", 2**12), uploads() as uploader, long:
        uploader.matrix([floats("w", normal(8, 2048))])
    assert backend(FLOATS).device.allocated == before


@pytest.mark.parametrize("variant", [FLOATS, CODES])
def test_shards_run(variant: str) -> None:
    """Embedding and logits over tables of several shards."""
    rows, width = 2048, 64
    weight, out = random_weight("w", "Q8_0", rows, width, seed=4), Buffer("out", width).view()
    case = Case((Embed("w", out),), np.zeros((rows, 32), np.float32), out, {"w": weight})
    with patch.object(Device, "largest_buffer", new_callable=PropertyMock, return_value=2**16):
        step = case.step(backend(variant), 64)  # type: ignore[arg-type]  # any backend will do
    for first in (0, 1000, rows - 20):
        found = run_step(step, one_batch(20), first)[:, :width]
        assert np.array_equal(found, dequantised(weight)[first : first + 20])
    step.close()


def test_one_long_row() -> None:
    weight = floats("w", normal(1, 2080))
    with uploads() as uploader:
        assert len(planes(uploader.matrix([weight]))[0]) == 72 * 128


def test_staging_memory_grows_with_the_weights() -> None:
    with uploads() as uploader:
        sizes = []
        for rows in (8, 4096, 8):
            before = uploader.device.allocated
            matrix = uploader.matrix([random_weight("w", "F32", rows, 64)])
            sizes.append(uploader.device.allocated - before - sum(buffer.size for buffer in matrix.buffers))
    assert 0 < sizes[0] < sizes[1] and sizes[2] == 0


@pytest.mark.parametrize("quant", ["F32", "F16", "BF16"])
@pytest.mark.parametrize(("tokens", "width"), [(2, 40), (11, 40), (2, 21), (2, 1100)])
def test_rows_of_floats_are_padded(quant: str, tokens: int, width: int) -> None:
    x, out = Buffer("x", width).view(), Buffer("out", 21).view()
    case = Case((Linear(x, ("w",), (out,)),), normal(tokens, width, seed=3), out, {"w": random_weight("w", quant, 21, width)})
    assert error(case, one_batch(tokens), FLOATS) < 1e-7


@pytest.mark.parametrize("value", [0.5, -7.0, -3e38, np.inf, -np.inf, np.nan])
def test_the_largest_of_bf16(value: float) -> None:
    """Wherever it stands, in one part or another."""
    values = np.clip(normal(5, 64, 32), -3, 3)
    values[4, 63, 31] = value
    whole = floats("w", values, "BF16")
    parts = tuple(np.split(whole.data, 5))
    weight = replace(whole, data=parts[0], pieces=parts)
    assert len(weight.parts) == 5
    with uploads() as uploader, patch("lacewing.backends.webgpu.weights.matrices.SHARE_BYTES", 1000):
        largest = uploader.largest(weight)
    expected = np.abs(dequantised(whole)).max()
    assert largest == (expected if np.isfinite(expected) else np.inf)


def test_progress_tells_every_byte_once() -> None:
    told: list[int] = []
    weights = [random_weight("a", "Q4_0", 70, 256), random_weight("b", "IQ2_XS", 40, 256)]
    with patch("lacewing.backends.webgpu.weights.staging.STAGING_BYTES", 2**13), uploads(tell=told.append) as uploader:
        for weight in weights:
            told.clear()
            uploader.matrix([weight])
            assert len(told) > 1 and min(told) > 0 and sum(told) == weight.data.nbytes
        told.clear()
        uploader.vector(floats("v", normal(33)))
        assert told == [132]


@pytest.mark.parametrize("after", [0, 1, 3])
def test_cancelling_leaves_nothing(after: int) -> None:
    device, calls = backend(FLOATS).device, 0

    def tell(_: int) -> None:
        nonlocal calls
        calls += 1
        if calls > after:
            raise Cancelled("enough")

    before = device.allocated
    with patch("lacewing.backends.webgpu.weights.staging.STAGING_BYTES", 2**13):
        uploader = Uploader(device, tell)
        with pytest.raises(Cancelled):
            uploader.matrix([random_weight("w", "Q4_0", 300, 256)])
        with pytest.raises(Cancelled):
            uploader.vector(floats("v", normal(33)))
        uploader.close()
    assert device.allocated == before


def test_cancelling_a_compilation_leaves_nothing() -> None:
    x, out = Buffer("x", 256).view(), Buffer("out", 96).view()
    case = Case((Linear(x, ("w",), (out,)),), normal(8, 256), out, {"w": random_weight("w", "Q4_0", 96, 256)})
    device, program = backend(FLOATS).device, case.program

    def progress(what: str, done: int, total: int) -> None:
        assert what == "bringing weights to the GPU" and 0 < done <= total
        if done > total // 2:
            raise Cancelled("enough")

    before = device.allocated
    with pytest.raises(Cancelled):
        backend(FLOATS).compile(program, case.all_weights(program.vocab_size), StepLimits(64, 64), progress)
    assert device.allocated == before


@pytest.mark.parametrize("last", [1, 2, 5])
def test_no_memory_half_way_leaves_nothing(last: int) -> None:
    device, made, left = backend(FLOATS).device, Device.buffer, last

    def few(self: Device, *arguments: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise OutOfMemoryError("no more")
        return made(self, *arguments)

    before = device.allocated
    uploader = Uploader(device)
    with patch.object(Device, "buffer", few), pytest.raises(OutOfMemoryError):
        uploader.matrix([random_weight("w", "Q6_K", 20, 256)])
    uploader.close()
    assert device.allocated == before


@pytest.mark.parametrize(("quant", "width"), [("Q8_0", 512), ("F16", 500)])
def test_the_host_keeps_no_second_copy(quant: str, width: int) -> None:
    weight = random_weight("w", quant, 8192, width)
    with patch("lacewing.backends.webgpu.weights.staging.STAGING_BYTES", 2**20), uploads() as uploader:
        tracemalloc.start()
        uploader.matrix([weight])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < weight.data.nbytes / 8
