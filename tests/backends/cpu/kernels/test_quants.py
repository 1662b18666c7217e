"""Every block type on the CPU: linears against the exact formula, embeddings, and rows of unusual numbers."""

import numpy as np
import pytest

from lacewing.backends.cpu.isa import host_isa
from lacewing.backends.cpu.quants import FLOATS, GENERIC, TILES, kernels_of
from lacewing.errors import UnsupportedModelError
from lacewing.program.ops import Buffer, Linear
from lacewing.quants import QUANTS, by_name
from tests.backends.cpu.checks import check_embedding, check_extremes, check_linear, check_one_token, largest_activations
from tests.backends.cpu.single_ops import (
    HALVES,
    Case,
    as_bytes_and_back,
    dequantised,
    logits,
    nmse,
    normal,
    one_batch,
    random_weight,
    singly,
)
from tests.models.running import MappedWeight

LANES = host_isa().lanes
TOKENS = (1, 2, 3, 7, 8, 9, 17, 64)
ALL = [*TILES, *FLOATS, *GENERIC]


def test_every_type_of_a_gguf_file_has_a_kernel() -> None:
    for quant in QUANTS.values():
        if quant.ggml_id is not None:
            kernels_of(quant)
    with pytest.raises(UnsupportedModelError, match="no kernel for BOOL"):
        kernels_of(by_name("BOOL"))


@pytest.mark.parametrize("quant", ALL)
def test_linear_against_the_exact_formula(quant: str) -> None:
    block = by_name(quant).block_elements
    widths = (32, 96, 288, 544) if block == 32 else (block, 3 * block) if block > 1 else (5, LANES, 3 * LANES + 3, 260)
    for width, rows in zip(widths, (LANES, 2 * LANES + 5, LANES + 1, 67), strict=False):
        check_linear(quant, rows, width, TOKENS if rows > 2 * LANES else (1, 9))


@pytest.mark.parametrize("quant", TILES)
def test_a_token_alone_gets_the_same_bits(quant: str) -> None:
    shapes = [(LANES, 256), (2 * LANES + 5, 768), (LANES + 1, 2048)]
    if by_name(quant).block_elements == 32:  # whole groups of blocks, none, and some with a rest
        shapes += [(LANES + 3, 32), (2 * LANES, 64), (LANES, 96), (3 * LANES + 1, 288), (LANES, 576)]
    for rows, width in shapes:
        check_one_token(quant, rows, width)


@pytest.mark.parametrize("quant", ["Q4_K", "Q8_0", "IQ2_XS", "F16"])
def test_fewer_rows_than_lanes(quant: str) -> None:
    for rows in {1, 3, LANES - 1}:
        check_linear(quant, rows, 256, (1, 5, 17))


@pytest.mark.parametrize("quant", ["Q4_0", "Q5_K", "Q3_K", "IQ4_XS", "Q6_K", "IQ3_S", "BF16"])
def test_long_rows(quant: str) -> None:
    check_linear(quant, 2 * LANES, 8 * 256, (4,))


def test_rows_of_which_not_several_fit_the_scratch() -> None:
    check_linear("TQ2_0", 7, 65 * 256, (1, 6))


@pytest.mark.parametrize("quant", ALL)
def test_embeddings(quant: str) -> None:
    check_embedding(quant)


@pytest.mark.parametrize("quant", ["Q4_0", "Q4_K", "Q2_K", "Q6_K", "IQ4_XS", "MXFP4", "IQ2_S", "IQ1_M", "NVFP4"])
def test_blocks_with_any_bytes(quant: str) -> None:
    """Scales that are NaN, infinite, subnormal: the row that they belong to says so, the others keep their bits."""
    kind, rows, x = by_name(quant), 5 * LANES, normal(5 * LANES, 256)
    weight = random_weight("w", quant, rows, 256)
    data = weight.data.reshape(rows, -1).copy()
    data[::2] = np.random.default_rng(3).integers(0, 256, data[::2].shape, np.uint8)
    for at in HALVES.get(quant, ()):
        data[0, at : at + 2], data[2, at : at + 2] = (0, 0x7E), (0, 0x7C)  # NaN and infinity
    wild = MappedWeight("w", weight.shape, kind, data.reshape(-1))
    found, plain = logits(x, wild, range(3)), logits(x, weight, range(3))
    assert np.array_equal(found[:, 1::2], plain[:, 1::2])
    values = dequantised(wild).astype(np.float64)
    finite = np.isfinite(values).all(axis=1)
    if quant != "MXFP4":  # 12 * 2^127 is beyond float32, its product with a small number need not be
        assert not np.isfinite(found[:, ~finite]).any()
    given = (as_bytes_and_back(x) if quant in TILES else x)[:3]
    expected, size = given @ values[finite].T, np.abs(given) @ np.abs(values[finite]).T
    inside = size < 1e37  # of float32
    error = np.abs(found[:, finite] - expected)[inside] / size[inside]
    assert error.max() < 1e-5


@pytest.mark.parametrize("quant", TILES)
def test_largest_products(quant: str) -> None:
    """Bytes as large as they can be, under activations of 127 and -127: sums that are kept in few bits must hold them."""
    check_extremes(quant, 3 * LANES, largest_activations())


@pytest.mark.parametrize("quant", ["Q4_K", "Q8_0", "F32", "IQ3_XXS"])
@pytest.mark.parametrize(("scale", "softcap"), [(1.0, None), (0.5, None), (2.0, 3.0)])
def test_logits_of_chosen_rows(quant: str, scale: float, softcap: float | None) -> None:
    vocab, width = 3 * LANES + 3, 256
    weight, x = random_weight("out", quant, vocab, width), normal(vocab, width)
    bias = normal(vocab, seed=9) if softcap else np.zeros(vocab, np.float32)
    y = scale * ((as_bytes_and_back(x) if quant in TILES else x) @ dequantised(weight).T.astype(np.float64) + bias)
    expected = y if softcap is None else softcap * np.tanh(y / softcap)
    for outputs in ([], [vocab - 1], [5, 0, 5, 11], list(range(vocab))):
        found = logits(x, weight, outputs, 2, scale, softcap, bias if softcap else None)
        assert found.shape == (len(outputs), vocab) and found.dtype == np.float32
        if outputs:
            assert nmse(found, expected[outputs]) < 1e-10


@pytest.mark.parametrize("quant", ["Q4_1", "Q3_K", "Q8_0", "F32", "BF16", "TQ1_0"])
def test_neither_batch_nor_threads_change_a_bit(quant: str) -> None:
    rows, width = 5 * LANES + 1, 512
    y = Buffer("y", rows).view()
    case = Case(
        (Linear(Buffer("x", width).view(), ("w",), (y,)),), normal(41, width), y, {"w": random_weight("w", quant, rows, width)}
    )
    whole = case.run(one_batch(41))
    for threads in (2, 3):
        assert np.array_equal(case.run(one_batch(41), threads), whole)
    assert np.array_equal(case.run(singly(one_batch(41)), 2), whole)
    parts = [([0] * n, list(range(s, s + n))) for s, n in ((0, 9), (9, 7), (16, 2), (18, 17), (35, 6))]
    assert np.array_equal(case.run(parts), whole)
