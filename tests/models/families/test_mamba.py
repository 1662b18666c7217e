"""Mamba-2 and its hybrids: what files say of their layers."""

import math
from dataclasses import replace

import numpy as np
import pytest

from lacewing.errors import UnsupportedModelError, WeightError
from lacewing.formats import open_checkpoint
from lacewing.formats.checkpoint import ByteRange, TensorInfo
from lacewing.models import open_model
from lacewing.program.ops import Activation, Attention, ExpertLinear, Rope, SelectiveScan
from lacewing.program.states import FixedState, PagedState
from lacewing.quants import by_name
from tests.checkpoints import prompt_of, tiny
from tests.families import mamba
from tests.models.golden import TOLERANCE, VALUES
from tests.models.running import open_step, run
from tests.models.test_refusals import with_config, with_keys

NAMES = ("granitehybrid", "granitehybrid-moe", "nemotron_h", "nemotron_h-moe", "mamba2")


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mamba")
    return {(name, kind): open_checkpoint(tiny(name, kind, folder)) for name in NAMES for kind in ("gguf", "huggingface")}


@pytest.mark.parametrize("kind", ["gguf", "huggingface"])
def test_every_layer_has_the_states_of_its_kind(opened, kind):
    program = open_model(opened["granitehybrid-moe", kind]).program
    assert [type(state) for state in program.states] == [FixedState] * 4 + [PagedState] + [FixedState] * 2
    assert program.states[:2] == (FixedState((("conv", (3, 128 + 2 * 2 * 16)),)), FixedState((("scan", (8, 16, 16)),)))
    assert [group.members for group in program.groups] == [(0, 2, 5), (1, 3, 6), (4,)]
    scans = [op for op in program.ops if isinstance(op, SelectiveScan)]
    assert [(op.heads, op.groups, op.log_decay) for op in scans] == [(8, 2, kind == "huggingface")] * 3
    assert not any(isinstance(op, Rope) for op in program.ops)


@pytest.mark.parametrize("kind", ["gguf", "huggingface"])
def test_layers_of_one_part(opened, kind):
    spec = open_model(opened["nemotron_h", kind])
    mixers = [op for op in spec.program.ops if isinstance(op, SelectiveScan | Attention | Activation)]
    mixers = [op for op in mixers if not isinstance(op, Activation) or op.function == "relu2"]
    assert [type(op) for op in mixers] == [SelectiveScan, Activation, SelectiveScan, Attention, Activation, SelectiveScan]
    assert spec.config.mamba.kinds == ("mamba", "mlp", "mamba", "attention", "mlp", "mamba")
    mixed = open_model(opened["nemotron_h-moe", kind])
    assert mixed.config.mixture.layers == (False, True, False, True, False)
    assert len([op for op in mixed.program.ops if isinstance(op, ExpertLinear)]) == 4
    assert mixed.active_parameters < mixed.parameters


@pytest.mark.parametrize("name", ["granitehybrid", "nemotron_h-latent", "mamba2-tied"])
def test_pieces_on_the_reference(name, tmp_path):
    _, step = open_step(tiny(name, "huggingface", tmp_path))
    ids, found, start = prompt_of(name), [], 0
    for size in (1, 2, 5, 16):
        found.append(run(step, ids[start : start + size], start))
        start += size
    np.testing.assert_allclose(np.concatenate(found)[VALUES["rows"]], VALUES[f"{name}.logits"], rtol=0, atol=TOLERANCE)


def test_what_configs_say_of_layers(opened):
    """Kinds have older and newer names, and a letter each in files of the makers."""
    granite, nemotron = opened["granitehybrid", "huggingface"], opened["nemotron_h", "huggingface"]
    newer = ["linear_attention", "linear_attention", "full_attention", "linear_attention"]
    same = with_config(granite, layer_types=newer, mamba_d_head="auto", position_embedding_type=None, num_experts_per_tok=2)
    assert open_model(same).program == open_model(granite).program
    listed = ["linear_attention", "mlp", "linear_attention", "full_attention", "mlp", "linear_attention"]
    same = with_config(nemotron, hybrid_override_pattern=None, layers_block_type=listed, num_hidden_layers=None, sliding_window=4)
    assert open_model(same).program == open_model(nemotron).program
    assert open_model(with_config(nemotron, time_step_min=0.001)).program == open_model(nemotron).program  # see its row
    unlimited = with_config(granite, time_step_limit=[0.0, {"__float__": "Infinity"}])
    assert open_model(unlimited).program == open_model(granite).program
    limited = open_model(with_config(opened["mamba2", "huggingface"], time_step_limit=[0.01, 0.1]))
    assert {op.limits for op in limited.program.ops if isinstance(op, SelectiveScan)} == {(0.01, 0.1)}


def test_a_layer_of_prediction_is_left_out(opened):
    """Behind the others in a GGUF file, where the lists of what layers are go on with it."""
    checkpoint = opened["nemotron_h-moe", "gguf"]
    extra = {f"blk.5.{part}.weight": (64,) for part in ("attn_norm", "nextn.enorm", "attn_q", "ffn_gate_inp")}
    more = {name: replace(checkpoint.tensors["output_norm.weight"], name=name, shape=shape) for name, shape in extra.items()}
    changes = {"nemotron_h_moe__block_count": 6, "nemotron_h_moe__nextn_predict_layers": 1,
               "nemotron_h_moe__attention__head_count_kv": [0, 0, 2, 0, 0, 2],
               "nemotron_h_moe__feed_forward_length": [0, 32, 0, 32, 0, 32]}  # fmt: skip
    spec = open_model(with_keys(replace(checkpoint, tensors={**checkpoint.tensors, **more}), **changes))
    assert spec.program == open_model(checkpoint).program


_GRANITE = {"model_type": "granitemoehybrid", "hidden_size": 4096, "num_hidden_layers": 40, "num_attention_heads": 32,
            "num_key_value_heads": 8, "num_local_experts": 72, "num_experts_per_tok": 10, "shared_intermediate_size": 1536,
            "intermediate_size": 768, "mamba_d_state": 128, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_n_heads": 128,
            "mamba_d_head": 64, "mamba_n_groups": 1, "mamba_conv_bias": True, "tie_word_embeddings": True, "vocab_size": 100352,
            "position_embedding_type": "nope",
            "layer_types": ["mamba"] * 5 + (["attention"] + ["mamba"] * 9) * 3 + ["attention"] + ["mamba"] * 4}  # fmt: skip
_NEMOTRON = {"model_type": "nemotron_h", "vocab_size": 131072, "head_dim": 128, "num_attention_heads": 32, "mamba_head_dim": 64,
             "ssm_state_size": 128, "n_groups": 8, "conv_kernel": 4, "use_conv_bias": True, "mlp_bias": False,
             "num_hidden_layers": 52, "tie_word_embeddings": False,
             "layer_norm_epsilon": 1e-5}  # fmt: skip
_NANO = _NEMOTRON | {
    "hybrid_override_pattern": "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME",
    "hidden_size": 2688, "num_key_value_heads": 2,
    "intermediate_size": 1856, "mamba_num_heads": 64, "n_routed_experts": 128, "num_experts_per_tok": 6, "n_shared_experts": 1,
    "moe_intermediate_size": 1856, "moe_shared_expert_intermediate_size": 3712, "norm_topk_prob": True,
    "routed_scaling_factor": 2.5, "n_group": 1, "topk_group": 1, "max_position_embeddings": 262144}  # fmt: skip
_8B = _NEMOTRON | {
    "hybrid_override_pattern": "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-",
    "hidden_size": 4096, "num_key_value_heads": 8, "intermediate_size": 21504, "mamba_num_heads": 128,
    "max_position_embeddings": 8192, "attention_head_dim": 128,
    "rms_norm_eps": 1e-5, "time_step_min": 0.001}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "total", "active"),
    [(_GRANITE, 32.2, 9.0), (_NANO, 31.6, 3.6), (_8B, 8.1, 8.1)],
    ids=["granite-4.0-h-small", "nemotron-3-nano-30b-a3b", "nemotron-h-8b"],
)
def test_published_sizes(opened, config, total, active):
    """Billions of parameters as their makers count them; headers alone are read."""
    checkpoint = replace(opened["mamba2", "huggingface"], metadata={"config.json": config}, whole=False)
    quant, path = by_name("BF16"), checkpoint.path
    shapes = mamba.shapes(config)
    tensors = {name: TensorInfo(name, shape, quant, (ByteRange(path, 0, 2 * math.prod(shape)),)) for name, shape in shapes.items()}
    spec = open_model(replace(checkpoint, tensors=tensors), 4096)
    assert spec.parameters / 1e9 == pytest.approx(total, rel=0.01)
    assert spec.active_parameters / 1e9 == pytest.approx(active, rel=0.03)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("granitehybrid", {"layer_types": ["mamba"] * 3}, "layer_types must name"),
        ("granitehybrid", {"layer_types": ["mamba", "rwkv", "attention", "mamba"]}, "layer_types must name"),
        ("granitehybrid", {"mamba_n_heads": 7}, "mamba_n_heads is 7"),
        ("granitehybrid", {"mamba_d_head": 32}, "mamba_n_heads is 8; heads of 32"),
        ("granitehybrid", {"mamba_n_groups": 3}, "8 heads of Mamba do not divide over 3 groups"),
        ("granitehybrid", {"mamba_d_conv": 1}, "mamba_d_conv is 1"),
        ("granitehybrid", {"mamba_conv_bias": False}, "mamba.conv1d.bias|no place"),
        ("granitehybrid", {"position_embedding_type": "alibi"}, "position_embedding_type is 'alibi'"),
        ("granitehybrid", {"time_step_limit": [0.5, 0.1]}, "time_step_limit must be"),
        ("granitehybrid", {"time_step_limit": "none"}, "time_step_limit must be"),
        ("nemotron_h", {"hybrid_override_pattern": "M-M*-X"}, "hybrid_override_pattern must name"),
        ("nemotron_h", {"hybrid_override_pattern": "M-M"}, "hybrid_override_pattern must name"),
        ("nemotron_h", {"hybrid_override_pattern": None}, "hybrid_override_pattern must name"),
        ("nemotron_h", {"mlp_hidden_act": "silu"}, "mlp_hidden_act is 'silu'"),
        ("nemotron_h", {"ssm_state_size": 32}, "has shape"),
        ("nemotron_h-moe", {"n_routed_experts": 9}, "lacks expert 8"),
        ("mamba2", {"num_heads": 0}, "num_heads is 0"),
    ],
)
def test_refused_configs(opened, name, changes, message):
    with pytest.raises((UnsupportedModelError, WeightError), match=message):
        open_model(with_config(opened[name, "huggingface"], **changes))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("granitehybrid", {"granitehybrid__attention__head_count_kv": [0, 0, 2]}, "head_count_kv must be a number"),
        ("granitehybrid", {"granitehybrid__attention__head_count_kv": [0, 0, 1, 2]}, "differs from layer to layer"),
        ("granitehybrid", {"granitehybrid__attention__head_count_kv": 2}, "are missing"),
        ("granitehybrid", {"granitehybrid__ssm__time_step_rank": 7}, "ssm.inner_size is 128, which 7 heads"),
        ("granitehybrid", {"granitehybrid__ssm__state_size": None}, "ssm.state_size is missing"),
        ("granitehybrid", {"granitehybrid__ssm__group_count": 5}, "do not divide over 5 groups"),
        ("nemotron_h", {"nemotron_h__feed_forward_length": [0, 96, 0, 0, 95, 0]}, "differs from layer to layer"),
        ("nemotron_h", {"nemotron_h__ssm__conv_kernel": 1}, "ssm.conv_kernel is 1"),
        ("nemotron_h-moe", {"nemotron_h_moe__moe_latent_size": 32}, "are missing"),
        ("mamba2", {"mamba2__ssm__inner_size": 120}, "has shape|missing"),
    ],
)
def test_refused_keys(opened, name, changes, message):
    with pytest.raises((UnsupportedModelError, WeightError), match=message):
        open_model(with_keys(opened[name, "gguf"], **changes))
