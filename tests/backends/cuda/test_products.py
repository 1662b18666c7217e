"""Prompts on cards whose float16 products run at half rate: which kernels, and the memory that they take. No GPU is needed."""

from __future__ import annotations

import pytest

from lacewing.backends.batch import StepLimits
from lacewing.backends.cuda.backend import CudaBackend
from lacewing.backends.cuda.device.device import Device
from lacewing.backends.cuda.kernels import kernel
from lacewing.backends.cuda.lowering.inputs import TILES
from lacewing.backends.cuda.lowering.products import byte_tile_shared
from lacewing.backends.gpu.layouts import LAYOUTS
from tests import paged
from tests.backends.cpu.single_ops import CHUNK, Case
from tests.backends.cuda.recording import RecordingDriver
from tests.backends.cuda.test_lowering import beside_case, dense_case, launched, with_product
from tests.backends.webgpu.lowering.test_attention import attention_case
from tests.backends.webgpu.lowering.test_experts import linear_case


@pytest.mark.parametrize("arch", [(8, 6), (8, 9), (12, 0)], ids=str)
def test_many_tokens_are_multiplied_as_bytes_where_float16_is_slow(arch: tuple[int, int]) -> None:
    """And norms and activations make the bytes; float weights stay with float16."""
    one, few, many = launched(dense_case("Q4_K"), [1, 4, 40], arch)
    assert one[:3] == ["wide_norm", "gemv_gated", "gemv_bytes"]
    assert few[:4] == ["wide_norm", "gemm_few", "wide_gated", "gemm_few"]
    assert many[:4] == ["wide_norm", "gemm_bytes", "wide_gated", "gemm_bytes"]
    (floats,) = launched(dense_case("F16"), [40], arch)
    assert floats[:4] == ["wide_norm", "gemm_mma", "wide_gated", "gemm_mma"]


def test_bytes_of_many_that_are_read_later_keep_their_place_until_then() -> None:
    (many,) = launched(beside_case(), [40], (8, 9))
    assert many[:6] == ["wide_norm", "gemm_bytes", "wide_norm", "gemm_bytes", "quantise", "gemm_bytes"]


@pytest.mark.parametrize(
    ("arch", "product", "between"),
    [
        ((8, 9), "gemm_bytes", [True, True, True]),
        ((8, 0), "gemm_mma", [True, False, True]),
        ((9, 0), "gemm_wgmma", [True, False, True]),
    ],
    ids=str,
)
def test_forms_of_many_tokens_of_attention(arch: tuple[int, int], product: str, between: list[bool]) -> None:
    """Of a prompt, of rows with a token each, and of both: its kernels make float16 of the second, and bytes of one token only."""
    on = Device(RecordingDriver(arch), 0)
    step = with_product(attention_case(70, 8, 2, 64, 64)).step(CudaBackend(on), 128, 20)  # type: ignore[arg-type]
    driver, found = on.driver, []
    assert isinstance(driver, RecordingDriver)
    for rows, positions in (([0] * 40, range(40)), (range(1, 20), [0] * 19), ([0] * 16 + [1], [*range(40, 56), 1])):
        driver.launched.clear()
        paged.run(step, [0] * len(rows), rows, positions, [0])
        names = [name for name, *_ in driver.launched]
        found.append({"quantise", "half_rows"} & {*names[: names.index(product)]})
    step.close()
    on.close()
    maker = {"quantise" if product == "gemm_bytes" else "half_rows"}
    assert found == [maker if made else set() for made in between]


@pytest.mark.parametrize("arch", [(8, 9), (9, 0)], ids=str)
@pytest.mark.parametrize("case", [dense_case("Q4_K"), linear_case("Q4_K", "separate", 256, 70)], ids=["dense", "experts"])
def test_the_forms_of_activations_are_planned(case: Case, arch: tuple[int, int]) -> None:
    on, weights = Device(RecordingDriver(arch), 0), case.all_weights(case.program.vocab_size)
    planned = CudaBackend(on).memory(case.program, weights, StepLimits(128, CHUNK)).buffer_bytes
    step = case.step(CudaBackend(on), 128)  # type: ignore[arg-type]
    assert 0.8 * planned <= step.buffer_bytes <= planned + 1024  # of counters and constants
    step.close()
    on.close()


@pytest.mark.parametrize("name", kernel("gemm_bytes").macros["QUANT"])
def test_tiles_of_bytes_fit_the_shared_memory_of_a_geforce(name: str) -> None:
    """99 KiB a block, of which the kernel has a few bytes besides."""
    assert byte_tile_shared(LAYOUTS[name], TILES[-1]) <= 98 * 1024
