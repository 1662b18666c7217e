"""gpt-oss as its makers publish it: experts in MXFP4, values and powers of two apart from each other."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lacewing.errors import UnsupportedModelError, WeightError
from lacewing.formats import open_checkpoint
from lacewing.models import open_model
from lacewing.quants import by_name
from lacewing.quants.fp4 import HALVES
from tests.checkpoint_files import as_bytes
from tests.checkpoints import config_of, tiny, weights_of
from tests.models.test_fp8 import check_cpu, check_reference, write
from tests.models.test_refusals import with_config


def packed(values):
    """(E, in, out) to nibbles (E, out, in / 32, 32), exponents (E, out, in / 32) and the numbers that they stand for."""
    rows = values.swapaxes(1, 2)
    groups = rows.reshape(*rows.shape[:2], -1, 32)
    exponents = np.floor(np.log2(np.abs(groups).max(axis=-1))).astype(np.int64) - 2
    scaled = groups / np.exp2(exponents)[..., None]
    nibbles = np.abs(scaled[..., None] - HALVES).argmin(axis=-1)
    numbers = (HALVES[nibbles] * np.exp2(exponents)[..., None]).reshape(rows.shape).swapaxes(1, 2)
    return nibbles, (exponents + 127).astype(np.uint8), numbers.astype(np.float32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same numbers in MXFP4 and in F32."""
    folder = tmp_path_factory.mktemp("mxfp4")
    config = config_of("gpt-oss")
    exact = tiny("gpt-oss", "huggingface", folder / "exact")
    small = tiny("gpt-oss", "huggingface", folder / "small")
    entries, plain = {}, {}
    for name, value in weights_of(config).items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            entries[name] = plain[name] = ("F32", value, as_bytes(value, "F32"))
            continue
        nibbles, exponents, numbers = packed(value)
        pairs = (nibbles[..., ::2] | nibbles[..., 1::2] << 4).astype(np.uint8)  # even values low
        entries[f"{name}_blocks"] = ("U8", pairs, pairs.tobytes())
        entries[f"{name}_scales"] = ("U8", exponents, exponents.tobytes())
        plain[name] = ("F32", numbers, as_bytes(numbers, "F32"))
    write(exact, plain)
    write(small, entries)
    quantisation = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    (small / "config.json").write_text(json.dumps(config | {"quantization_config": quantisation}))
    return exact, small


@pytest.mark.parametrize("residency", ["lazy", "eager"])
def test_logits_are_those_of_the_same_numbers_in_f32(folders, residency):
    check_reference(folders, residency, "gpt-oss")


def test_the_cpu_backend_equals_the_reference_and_itself(folders):
    check_cpu(folders[1], "gpt-oss")


def test_sizes(folders):
    exact, small = (open_model(open_checkpoint(folder)) for folder in folders)
    assert (exact.parameters, exact.active_parameters) == (small.parameters, small.active_parameters)
    assert small.program.weights["blk.0.ffn_gate_up_exps.weight"] == (6, 64, 64)
    assert small.active_bytes < 0.7 * exact.active_bytes


def test_the_config_must_say_so(folders):
    with pytest.raises(WeightError, match=r"U8|has shape|does not tell of blocks"):
        open_model(with_config(open_checkpoint(folders[1]), quantization_config=None))


def test_only_experts_are_packed(folders):
    """Bytes that are another weight are not taken for powers of two."""
    checkpoint = open_checkpoint(folders[1])
    name = "model.layers.1.self_attn.q_proj.weight"
    info = replace(checkpoint.tensors[name], quant=by_name("U8"))
    with pytest.raises(UnsupportedModelError, match=r"blk\.1\.attn_q\.weight holds whole numbers \(U8\)"):
        open_model(replace(checkpoint, tensors={**checkpoint.tensors, name: info}))
