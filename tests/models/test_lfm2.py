"""LFM2: layers of short convolutions, whose state is a unit of fixed size, between layers of attention."""

import numpy as np
import pytest

from lacewing.errors import UnsupportedModelError, WeightError
from lacewing.formats import open_checkpoint
from lacewing.models import open_model
from lacewing.program.ops import Attention, ShortConvolution
from lacewing.program.states import FixedState, PagedState
from tests import paged
from tests.checkpoints import prompt_of, tiny
from tests.models.golden import TOLERANCE, VALUES
from tests.models.running import open_step, run
from tests.models.test_refusals import with_config, with_keys


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lfm2")
    return {kind: open_checkpoint(tiny("lfm2", kind, folder)) for kind in ("gguf", "huggingface")}


@pytest.mark.parametrize("kind", ["gguf", "huggingface"])
def test_every_layer_has_the_state_of_its_kind(checkpoints, kind):
    spec = open_model(checkpoints[kind])
    assert [type(state) for state in spec.program.states] == [FixedState, PagedState, FixedState, FixedState]
    assert [group.members for group in spec.program.groups] == [(0, 2, 3), (1,)]
    assert spec.program.states[0] == FixedState((("conv", (2, 64)),))
    mixers = [op for op in spec.program.ops if isinstance(op, ShortConvolution | Attention)]
    assert [(type(op), op.state) for op in mixers] == [
        (ShortConvolution, 0), (Attention, 1), (ShortConvolution, 2), (ShortConvolution, 3)]  # fmt: skip
    assert spec.program.weights["blk.0.shortconv.conv.weight"] == (64, 3)


@pytest.mark.parametrize("name", ["lfm2", "lfm2-biases"])
@pytest.mark.parametrize("sizes", [[1] * 24, [1, 2, 3, 18], [23, 1], [5, 7, 12]])
def test_chunks_give_the_logits_of_one_run(name, sizes, tmp_path):
    """Also pieces that are shorter than the kernel of the convolution."""
    _, step = open_step(tiny(name, "huggingface", tmp_path))
    ids, found, start = prompt_of(name), [], 0
    for size in sizes:
        found.append(run(step, ids[start : start + size], start))
        start += size
    np.testing.assert_allclose(np.concatenate(found)[VALUES["rows"]], VALUES[f"{name}.logits"], rtol=0, atol=TOLERANCE)


def test_sequences_of_one_run_keep_their_own_state(tmp_path):
    _, step = open_step(tiny("lfm2", "huggingface", tmp_path), rows=3)
    ids, expected = prompt_of("lfm2"), VALUES["lfm2.logits"]
    places = {row: 0 for row in range(3)}
    found: dict[int, list[np.ndarray]] = {row: [] for row in range(3)}
    for pieces in ({0: 4}, {0: 1, 2: 9}, {2: 1, 1: 2, 0: 12}, {1: 22, 2: 14, 0: 7}):
        rows = [row for row, count in pieces.items() for _ in range(count)]
        positions = [places[row] + each for row, count in pieces.items() for each in range(count)]
        logits = paged.run(step, [ids[position] for position in positions], rows, positions, range(len(rows))).copy()
        for row, count in pieces.items():
            places[row] += count
            found[row].append(logits[[each == row for each in rows]])
    for row in range(3):
        np.testing.assert_allclose(np.concatenate(found[row])[VALUES["rows"]], expected, rtol=0, atol=TOLERANCE)


def test_what_configs_say_of_layers_and_widths(checkpoints):
    """Older files list the layers with attention, and name widths that are not those of the weights."""
    checkpoint = checkpoints["huggingface"]
    expected = open_model(checkpoint)
    listed = with_config(checkpoint, layer_types=None, full_attn_idxs=[1])
    plain = with_config(checkpoint, block_ff_dim=None, intermediate_size=128, block_auto_adjust_ff_dim=False)
    older = with_config(checkpoint, block_dim=64, conv_dim=64, num_heads=4, block_use_swiglu=True, tie_embedding=True)
    for same in (listed, plain, older):
        assert open_model(same).program == expected.program
    assert (expected.config.eps, expected.config.feed_forward, expected.config.tied_output) == (1e-3, 128, True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_types": ["conv", "sliding_attention", "conv", "conv"]}, "sliding_window"),
        ({"layer_types": ["conv", "mamba", "conv", "conv"]}, "layer_types must name"),
        ({"layer_types": None, "full_attn_idxs": 2}, "full_attn_idxs must be a list"),
        ({"conv_L_cache": 1}, "conv_L_cache is 1"),
        ({"conv_L_cache": 4}, r"model.layers.0.conv.conv.weight has shape \(64, 3\); the model needs \(64, 4\)"),
        ({"block_use_swiglu": False}, "block_use_swiglu is false"),
        ({"conv_bias": True}, "9 weights are missing"),
        ({"block_multiple_of": 256}, "has shape"),
        ({"model_type": "lfm2_moe"}, "weights are missing: model.layers.2.feed_forward.gate.weight"),
    ],
)
def test_refused_configs(checkpoints, changes, message):
    with pytest.raises((UnsupportedModelError, WeightError), match=message):
        open_model(with_config(checkpoints["huggingface"], **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lfm2__attention__head_count_kv": [0, 2, 1, 0]}, "differs from layer to layer"),
        ({"lfm2__attention__head_count_kv": [0, 0, 0, 0]}, "differs from layer to layer|is missing"),
        ({"lfm2__attention__head_count_kv": [0, 2, 0]}, "has 3 numbers; there are 4 layers"),
        ({"lfm2__attention__head_count_kv": 2}, "are missing"),
        ({"lfm2__shortconv__l_cache": None}, "l_cache is missing"),
        ({"general__architecture": "llama"}, "head_count_kv|is missing"),
    ],
)
def test_refused_keys(checkpoints, changes, message):
    with pytest.raises((UnsupportedModelError, WeightError), match=message):
        open_model(with_keys(checkpoints["gguf"], **changes))


def test_layers_without_key_heads_are_refused_elsewhere(tmp_path):
    llama = open_checkpoint(tiny("llama", "gguf", tmp_path))
    with pytest.raises(UnsupportedModelError, match="head_count_kv differs from layer to layer"):
        open_model(with_keys(llama, llama__attention__head_count_kv=[2, 0]))
