"""Falcon-H1: both mixers in every layer, where the factors are in both formats, the same bits however the work is cut."""

import numpy as np
import pytest

import lacewing
from lacewing.backends import init_backend
from lacewing.engine.engine import Request
from lacewing.errors import UnsupportedModelError, WeightError
from lacewing.formats import open_checkpoint
from lacewing.models import open_model
from lacewing.options import Sampling
from lacewing.program.ops import Attention, Embed, GatedActivation, Logits, Norm, SelectiveScan
from lacewing.program.states import FixedState, PagedState
from lacewing.program.stream_ops import AddScale
from tests import paged
from tests.checkpoints import prompt_of, tiny
from tests.models.families.test_near import described
from tests.models.golden import TOLERANCE, VALUES
from tests.models.running import open_step, run
from tests.models.test_refusals import with_config, with_keys


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("falcon")
    cases = [("falcon-h1", "gguf"), *((name, "huggingface") for name in ("falcon-h1", "falcon-h1-norm", "falcon-h1-tied"))]
    return {case: open_checkpoint(tiny(*case, folder)) for case in cases}


def ops_of(checkpoint, *kinds):
    return [op for op in open_model(checkpoint).program.ops if isinstance(op, kinds)]


@pytest.mark.parametrize("kind", ["gguf", "huggingface"])
def test_every_layer_has_both_mixers(opened, kind):
    program = open_model(opened["falcon-h1", kind]).program
    assert [type(state) for state in program.states] == [FixedState, FixedState, PagedState] * 3
    assert [type(op) for op in program.ops if isinstance(op, SelectiveScan | Attention)] == [SelectiveScan, Attention] * 3


def test_factors_are_in_the_weights_of_a_file_and_ops_of_a_directory(opened):
    assert ops_of(opened["falcon-h1", "gguf"], AddScale) == []
    directory = opened["falcon-h1", "huggingface"]
    scales = [(op.x.width, op.factor) for op in ops_of(directory, AddScale)][:8]  # of the first layer: B has the factor of x
    expected = [(96, 0.9375), (112, 0.625), (16, 1.875), (6, 2.5), (64, 0.7), (64, 1.40625), (96, 0.8838834764831844)]
    assert scales == [*expected, (64, 0.5859375)]
    (embed,), (logits,) = ops_of(directory, Embed), ops_of(directory, Logits)
    assert (embed.scale, logits.scale) == (5.656854249492381, 0.6)
    assert [op.scale for op in ops_of(directory, Attention)] == pytest.approx([32**-0.5 * 0.5 * 1.5**2] * 3)
    ones = {f"{name}_multiplier": 1.0 for name in ("attention_in", "attention_out", "ssm_in", "ssm_out")}
    assert ops_of(with_config(directory, mlp_multipliers=None, ssm_multipliers=None, **ones), AddScale) == []


def test_the_factor_of_the_embedding_is_not_rounded(tmp_path):
    """Unlike Gemma's, whatever the dtype of the weights."""
    (embed,) = ops_of(open_checkpoint(tiny("falcon-h1", "huggingface", tmp_path, "BF16")), Embed)
    assert embed.scale == 5.656854249492381


def test_the_order_of_gate_and_norm(opened):
    """Published models have the gate first, then a norm (7B, 34B) or none (0.5B); transformers has the norm first by default."""
    orders = {}
    for name in ("falcon-h1", "falcon-h1-norm", "falcon-h1-tied"):
        found = ops_of(opened[name, "huggingface"], GatedActivation, Norm)
        orders[name] = [type(op).__name__ for op in found if op.out.buffer.name == "scanned"][:2]
    assert orders == {"falcon-h1": ["GatedActivation"] * 2, "falcon-h1-norm": ["GatedActivation", "Norm"],
                      "falcon-h1-tied": ["Norm", "GatedActivation"]}  # fmt: skip


@pytest.mark.parametrize("kind", ["gguf", "huggingface"])
def test_the_same_bits_however_the_work_is_cut(kind, tmp_path):
    """Pieces, other sequences in the step, threads: the logits of one run."""
    path, ids = tiny("falcon-h1-norm", kind, tmp_path), prompt_of("falcon-h1", 150)
    _, step = open_step(path, 256, init_backend("cpu", 2))
    expected = run(step, ids)
    step.close()
    for sizes in ([1] * 9 + [141], [3, 127, 20]):
        _, step = open_step(path, 256, init_backend("cpu", 1), rows=2)
        found, start = [], 0
        for size in sizes:
            rows, positions = [0] + [1] * size, [len(found), *range(start, start + size)]
            logits = paged.run(step, [5, *ids[start : start + size]], rows, positions, range(size + 1))
            found.append(logits[1:].copy())
            start += size
        assert np.array_equal(np.concatenate(found), expected)
        step.close()


def test_rewinds_and_prefix_hits_are_a_fresh_run(tmp_path):
    """Bit for bit on the CPU: a text that goes on, one that goes back to its middle, one that goes back to a mark."""
    base, other = (np.random.default_rng(seed).integers(0, 300, 300).tolist() for seed in (1, 2))
    asked = [base, [*base, *other[:40]], [*base[:200], *other[40:90]], base[:129], [*base, *other[:40], 7]]
    options = Sampling(temperature=0, max_tokens=5, logprobs=4)
    with lacewing.load(tiny("falcon-h1", "huggingface", tmp_path), backend="cpu", context=512, threads=2) as model:
        fresh = []
        for ids in asked:
            model.engine.forget()
            fresh.append(list(model.engine.generate(ids, options)))
        model.engine.forget()
        reused = []
        for ids, expected in zip(asked, fresh, strict=True):
            stream = model.engine.ask(Request(ids, options, marks=(200,)))
            assert list(stream) == expected
            reused.append(stream.stats.reused_tokens)
        assert reused == [0, 256, 128, 128, 256]  # at borders of pages, where a unit was kept


def test_pieces_on_the_reference(tmp_path):
    _, step = open_step(tiny("falcon-h1-tied", "huggingface", tmp_path))
    ids, found, start = prompt_of("falcon-h1-tied"), [], 0
    for size in (1, 2, 5, 16):
        found.append(run(step, ids[start : start + size], start))
        start += size
    np.testing.assert_allclose(np.concatenate(found)[VALUES["rows"]], VALUES["falcon-h1-tied.logits"], rtol=0, atol=TOLERANCE)


_HALF = {  # config.json of Falcon-H1-0.5B-Instruct, as NVIDIA's Megatron-Bridge has it in its tests, with mamba_d_ssm of a copy
    "model_type": "falcon_h1", "attention_bias": False, "attention_in_multiplier": 1.0, "attention_out_multiplier": 0.9375,
    "attn_layer_indices": None, "embedding_multiplier": 5.656854249492381, "head_dim": 64, "hidden_act": "silu",
    "hidden_size": 1024, "intermediate_size": 2048, "key_multiplier": 0.39062499999999994, "lm_head_multiplier": 0.0390625,
    "mamba_chunk_size": 128, "mamba_conv_bias": True, "mamba_d_conv": 4, "mamba_d_head": 64, "mamba_d_state": 128,
    "mamba_d_ssm": 1536, "mamba_expand": 2, "mamba_n_groups": 1, "mamba_n_heads": 24, "mamba_norm_before_gate": False,
    "mamba_proj_bias": False, "mamba_rms_norm": False, "mamba_use_mlp": True, "max_position_embeddings": 16384, "mlp_bias": False,
    "mlp_multipliers": [0.8838834764831844, 0.5859375], "num_attention_heads": 8, "num_hidden_layers": 36,
    "num_key_value_heads": 2, "projectors_bias": False, "rms_norm_eps": 1e-5, "rope_scaling": None, "rope_theta": 1e11,
    "ssm_in_multiplier": 1.25, "ssm_multipliers": [0.3535533905932738, 0.25, 0.3535533905932738, 0.5, 0.3535533905932738],
    "ssm_out_multiplier": 0.23570226039551587, "tie_word_embeddings": False, "vocab_size": 32784,
}  # fmt: skip
_LARGE = {  # what 7B and 34B share
    "head_dim": 128, "mamba_d_head": 128, "mamba_d_state": 256, "mamba_rms_norm": True, "max_position_embeddings": 262144,
    "ssm_multipliers": [0.3535533905932738, 0.25, 0.1767766952966369, 0.5, 0.3535533905932738],
}  # fmt: skip
_7B = _HALF | _LARGE | {  # numbers of Megatron-Bridge (others say that the vocabulary is 130048); the rest is as in 0.5B and 34B
    "attention_out_multiplier": 0.10416666666666667, "hidden_size": 3072, "intermediate_size": 12288,
    "key_multiplier": 0.030690398488999456, "lm_head_multiplier": 0.013020833333333334, "mamba_chunk_size": 256,
    "mamba_d_ssm": 3072, "mlp_multipliers": [0.2946278254943948, 0.032552083333333336], "num_attention_heads": 12,
    "num_hidden_layers": 44, "ssm_in_multiplier": 0.4166666666666667, "ssm_out_multiplier": 0.11785113019775793,
    "vocab_size": 130049,
}  # fmt: skip
_34B = _HALF | _LARGE | {  # config.json of Falcon-H1-34B-Instruct, of which Sahil170595/Chimeraforge has the whole file
    "attention_out_multiplier": 0.0375, "hidden_size": 5120, "intermediate_size": 21504, "key_multiplier": 0.011048543456039804,
    "lm_head_multiplier": 0.0078125, "mamba_d_ssm": 4096, "mamba_n_groups": 2, "mamba_n_heads": 32, "mlp_multipliers":
    [0.1767766952966369, 0.011160714285714284], "num_attention_heads": 20, "num_hidden_layers": 72, "num_key_value_heads": 4,
    "ssm_in_multiplier": 0.25, "ssm_out_multiplier": 0.08838834764831845, "vocab_size": 261120,
}  # fmt: skip
PUBLISHED = {"0.5B": (0.521, _HALF), "7B": (7.59, _7B), "34B": (33.643, _34B)}  # billions of parameters; of 34B as its files have


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    billions, config = PUBLISHED[name]
    found, program = described(config)
    parameters = sum(np.prod(shape, dtype=float) for shape in program.weights.values())
    assert parameters / 1e9 == pytest.approx(billions, rel=0.001)
    assert (found.mamba.head_width, found.head_width) == (config["mamba_d_head"], config["head_dim"])
    behind = [type(op) for op in program.ops if isinstance(op, GatedActivation | Norm) and op.out.buffer.name == "scanned"][:2]
    assert behind == ([GatedActivation, Norm] if config["mamba_rms_norm"] else [GatedActivation] * 2)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("falcon-h1", {"mamba_n_heads": 5}, "mamba_n_heads is 5; heads of 16 values do not fit the width 96"),
        ("falcon-h1", {"mamba_use_mlp": False}, "mamba_use_mlp is false"),
        ("falcon-h1", {"ssm_multipliers": [1.0] * 4}, "ssm_multipliers must be a list of 5"),
        ("falcon-h1", {"mlp_multipliers": [1.0, 0.0]}, "mlp_multipliers must be a list of 2"),
        ("falcon-h1", {"embedding_multiplier": 0.0}, "embedding_multiplier is 0.0"),
        ("falcon-h1", {"mamba_rms_norm": True}, "mamba.norm.weight"),
        ("falcon-h1-tied", {"attention_in_multiplier": 2.0}, "attention_in_multiplier is not 1 before linear layers with a bias"),
        ("falcon-h1-tied", {"ssm_in_multiplier": 2.0}, "ssm_in_multiplier is not 1 before linear layers with a bias"),
    ],
)
def test_refused_configs(opened, name, changes, message):
    with pytest.raises((UnsupportedModelError, WeightError), match=message):
        open_model(with_config(opened[name, "huggingface"], **changes))


def test_refused_keys(opened):
    checkpoint = opened["falcon-h1", "gguf"]
    for key, value, message in (("ssm__inner_size", 95, "ssm.inner_size is 95, which 6 heads"), ("ssm__group_count", 4, "4 groups"),
                                ("attention__head_count_kv", 0, "head_count_kv is 0")):  # fmt: skip
        with pytest.raises((UnsupportedModelError, WeightError), match=message):
            open_model(with_keys(checkpoint, **{f"falcon-h1__{key}": value}))
