"""Every block format against the gguf package, bit for bit, on random bytes."""

from __future__ import annotations

import gguf.quants as official
import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from lacewing.errors import UnsupportedModelError
from lacewing.quants import QUANTS, by_ggml_id, by_name, grids
from lacewing.quants.base import Quant

OFFICIAL = [kind.name for kind in official._type_traits] + ["F32", "F16"]


def random_rows(quant: Quant, rows: int, blocks: int, seed: int = 0) -> np.ndarray:
    """uint8 (rows, row_bytes); any byte pattern is a valid block."""
    return np.random.default_rng(seed).integers(0, 256, (rows, blocks * quant.block_bytes), np.uint8)


def same_bits(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Equal to the last bit and the sign of zero; any NaN equals any NaN."""
    nan = np.isnan(theirs)
    return bool((np.isnan(ours) == nan).all() and (ours.view(np.uint32)[~nan] == theirs.view(np.uint32)[~nan]).all())


@pytest.mark.parametrize("name", OFFICIAL)
def test_equals_the_gguf_package(name: str) -> None:
    quant = by_name(name)
    data = random_rows(quant, 16, 4096 if quant.block_elements == 1 else 256)
    with np.errstate(all="ignore"):
        expected = official.dequantize(data, GGMLQuantizationType[name])
    values = quant.dequantise(data)
    assert values.dtype == np.float32 and values.shape == (16, data.shape[1] // quant.block_bytes * quant.block_elements)
    assert same_bits(values, expected)


def test_every_scale_byte_of_the_small_floats() -> None:
    for name in ("MXFP4", "NVFP4"):
        data = random_rows(by_name(name), 1, 256)
        data.reshape(256, -1)[:, 0] = np.arange(256)
        with np.errstate(all="ignore"):
            expected = official.dequantize(data, GGMLQuantizationType[name])
        assert same_bits(by_name(name).dequantise(data), expected)


@pytest.mark.parametrize("name", QUANTS)
def test_sizes_are_the_official_ones(name: str) -> None:
    quant = by_name(name)
    assert repr(quant) == name and (quant.ggml_id is None or by_ggml_id(quant.ggml_id) is quant)
    if quant.ggml_id is None:
        assert name in ("F4_E2M1", "F8_E4M3", "F8_E8M0", "BOOL", "U8", "U16", "U32", "U64")  # safetensors only
    elif name in GGMLQuantizationType.__members__:
        kind = GGMLQuantizationType[name]
        assert (quant.ggml_id, quant.block_elements, quant.block_bytes) == (kind.value, *GGML_QUANT_SIZES[kind])
    else:
        assert name == "Q2_0"  # newer than the package
    assert quant.row_bytes(3 * quant.block_elements) == 3 * quant.block_bytes


def test_no_official_type_is_missing() -> None:
    left_out = set(GGMLQuantizationType.__members__) - set(QUANTS)
    assert left_out == {"Q8_1", "Q8_K"}  # activations, never weights


@pytest.mark.parametrize("name", ["I8", "I16", "I32", "I64", "F64", "U8", "U16", "U32", "U64"])
def test_numbers(name: str) -> None:
    dtype = np.dtype({"F": "<f", "I": "<i", "U": "<u"}[name[0]] + str(int(name[1:]) // 8))
    values = np.array([[0, 1, -1, 100], [7, -128, 127, 3]]).astype(dtype)
    assert (by_name(name).dequantise(values.view(np.uint8)) == values.astype(np.float32)).all()


def test_q1_0_and_q2_0_by_hand() -> None:
    block = np.zeros(18, np.uint8)
    block[:2] = np.array([2.5], np.float16).view(np.uint8)
    block[2], block[17] = 0b00000101, 0b10000000
    ones = by_name("Q1_0").dequantise(block)
    assert ones.shape == (128,) and np.flatnonzero(ones > 0).tolist() == [0, 2, 127] and set(ones) == {2.5, -2.5}
    twos = by_name("Q2_0").dequantise(block)
    assert twos.shape == (64,) and twos[:4].tolist() == [0, 0, -2.5, -2.5] and twos[63] == 2.5


@pytest.mark.parametrize("name", QUANTS)
def test_shapes_and_strides(name: str) -> None:
    quant = by_name(name)
    data = random_rows(quant, 6, 2).reshape(2, 3, -1)
    whole = quant.dequantise(data)
    assert whole.shape == (2, 3, 2 * quant.block_elements)
    assert same_bits(quant.dequantise(data[:, ::2]), whole[:, ::2])  # not contiguous
    unaligned = np.empty(data.nbytes + 1, np.uint8)[1:]
    unaligned[:] = data.ravel()
    assert same_bits(quant.dequantise(unaligned.reshape(data.shape)), whole)
    assert quant.dequantise(data[:0]).shape == (0, 3, 2 * quant.block_elements)


def test_unknown_types_are_refused_with_their_reason() -> None:
    for number, reason in ((4, "removed"), (9, "activations"), (43, "unknown"), (2**32 - 1, "unknown"), (-1, "unknown")):
        with pytest.raises(UnsupportedModelError, match=reason):
            by_ggml_id(number)
    with pytest.raises(UnsupportedModelError, match="unknown"):
        by_name("q4_k")


@pytest.mark.parametrize("name", ["IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S"])
def test_grids_are_the_official_ones(name: str) -> None:
    kind = getattr(official, name)
    kind.init_grid()
    assert (getattr(grids, name) == kind.grid.reshape(kind.grid_shape)).all()
    assert np.array_equal(grids.SIGNS, np.frombuffer(official.IQ2_XXS.ksigns, np.uint8))
