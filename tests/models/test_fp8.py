"""Checkpoints in FP8 with a factor for each block of rows and columns, as DeepSeek publishes them."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lacewing.backends import open_backend
from lacewing.backends.base import StepLimits
from lacewing.errors import UnsupportedModelError, WeightError
from lacewing.formats import open_checkpoint
from lacewing.models import open_model
from lacewing.quants.fp8 import VALUES
from lacewing.weights.store import WeightStore
from tests.checkpoint_files import as_bytes
from tests.checkpoints import config_of, prompt_of, tiny, weights_of
from tests.models.running import run
from tests.models.test_refusals import with_config

BLOCK = (8, 16)
KEPT = ("embed", "norm", "lm_head", "mlp.gate.", "bias")  # what stays in BF16 or F32
POSITIVE = VALUES[:0x7F]


def factors(values):
    """float32 (rows / R, columns / C) rounded up: the largest value of each block becomes 448."""
    rows, columns = (-(-size // part) for size, part in zip(values.shape, BLOCK, strict=True))
    padded = np.zeros((rows * BLOCK[0], columns * BLOCK[1]), np.float32)
    padded[: values.shape[0], : values.shape[1]] = np.abs(values)
    return padded.reshape(rows, BLOCK[0], columns, BLOCK[1]).max(axis=(1, 3)) / np.float32(448)


def spread(scales, shape):
    return scales.repeat(BLOCK[0], 0)[: shape[0]].repeat(BLOCK[1], 1)[:, : shape[1]]


def quantised(values, scales):
    """Nearest FP8 numbers, uint8."""
    scaled = values / spread(scales, values.shape)
    nearest = np.searchsorted((POSITIVE[1:] + POSITIVE[:-1]) / 2, np.abs(scaled))
    return (nearest + 0x80 * (scaled < 0)).astype(np.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same numbers in FP8 and in F32."""
    folder = tmp_path_factory.mktemp("fp8")
    config = config_of("deepseek3")
    exact = tiny("deepseek3", "huggingface", folder / "exact")
    small = tiny("deepseek3", "huggingface", folder / "small")
    entries, plain = {}, {}
    for name, value in weights_of(config).items():
        if any(part in name for part in KEPT):
            entries[name], plain[name] = ("F32", value, as_bytes(value, "F32")), value
            continue
        scales = factors(value)
        entries[name] = ("F8_E4M3", value, quantised(value, scales).tobytes())
        entries[f"{name}_scale_inv"] = ("F32", scales, as_bytes(scales, "F32"))
        plain[name] = VALUES[quantised(value, scales)] * spread(scales, value.shape)
    write(exact, {name: ("F32", value, as_bytes(value, "F32")) for name, value in plain.items()})
    write(small, entries)
    quantisation = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": list(BLOCK), "activation_scheme": "dynamic"}
    (small / "config.json").write_text(json.dumps(config | {"quantization_config": quantisation}))
    return exact, small


def write(folder, entries):
    header, offset = {}, 0
    for name, (dtype, value, data) in entries.items():
        header[name] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    whole = len(text).to_bytes(8, "little") + text + b"".join(data for _, _, data in entries.values())
    (folder / "model.safetensors").write_bytes(whole)


@pytest.mark.parametrize("residency", ["lazy", "eager"])
def test_logits_are_those_of_the_same_numbers_in_f32(folders, residency):
    found = []
    for folder in folders:
        spec = open_model(open_checkpoint(folder))
        store = WeightStore(spec.tensors)
        store.set_residency(residency)
        step = open_backend("reference").compile(spec.program, store, StepLimits(spec.context))
        found.append(run(step, prompt_of("deepseek3")))
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)


def test_sizes_and_values(folders):
    exact, small = (open_model(open_checkpoint(folder)) for folder in folders)
    assert exact.parameters == small.parameters
    assert exact.program == small.program
    stores = WeightStore(exact.tensors), WeightStore(small.tensors)
    for name in ("blk.1.ffn_up_exps.weight", "blk.0.attn_k_b.weight", "blk.2.attn_output.weight"):
        assert stores[1][name].quant.name == "F8_E4M3"
        np.testing.assert_array_equal(stores[1][name].dequantise(), stores[0][name].dequantise())


def test_the_cpu_backend_computes_them_or_says_that_it_cannot(folders):
    spec = open_model(open_checkpoint(folders[1]))
    store = WeightStore(spec.tensors)
    try:
        step = open_backend("cpu", 1).compile(spec.program, store, StepLimits(64))
    except UnsupportedModelError as error:
        assert "F8_E4M3" in str(error)
        return
    reference = open_backend("reference").compile(spec.program, store, StepLimits(64))
    np.testing.assert_allclose(run(step, prompt_of("deepseek3")), run(reference, prompt_of("deepseek3")), atol=1e-3)


def test_factors_that_do_not_fit(folders):
    checkpoint = open_checkpoint(folders[1])
    name = "model.layers.1.mlp.experts.2.up_proj.weight_scale_inv"
    without = {key: value for key, value in checkpoint.tensors.items() if key != name}
    with pytest.raises(WeightError, match="lacks expert 2"):
        open_model(replace(checkpoint, tensors=without))
    name = "model.layers.1.self_attn.o_proj.weight_scale_inv"
    without = {key: value for key, value in checkpoint.tensors.items() if key != name}
    with pytest.raises(WeightError, match=r"attn_output\.weight is in F8_E4M3, but no weight_scale_inv"):
        open_model(replace(checkpoint, tensors=without))
    turned = replace(checkpoint.tensors[name], shape=checkpoint.tensors[name].shape[::-1])
    with pytest.raises(WeightError, match=r"in blocks of \(8, 16\) needs"):
        open_model(replace(checkpoint, tensors={**checkpoint.tensors, name: turned}))
    with pytest.raises(WeightError, match="the config does not tell of blocks"):
        open_model(with_config(checkpoint, quantization_config=None))
    for problem in ({"weight_block_size": [0, 1]}, {"weight_block_size": None}, {"fmt": "e5m2"}):
        changed = checkpoint.metadata["config.json"]["quantization_config"] | problem
        with pytest.raises(UnsupportedModelError, match="come later"):
            open_model(with_config(checkpoint, quantization_config=changed))
