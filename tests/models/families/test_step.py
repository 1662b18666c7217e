"""Step 3.5: what files of both formats say of heads, rotation, experts and limits; what predicts ahead; real sizes; refusals."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lacewing.errors import UnsupportedModelError, WeightError
from lacewing.formats import open_checkpoint
from lacewing.models import open_model
from lacewing.models.sizes import measure
from lacewing.program.ops import Attention, GatedActivation, LimitedActivation, Rope, Route
from tests.checkpoints import prompt_of, tiny
from tests.models.families.test_near import described
from tests.models.golden import TOLERANCE, VALUES
from tests.models.running import open_step, run
from tests.models.test_refusals import with_config, with_keys

CASES = [(name, kind) for name in ("step35", "step35-plain") for kind in ("gguf", "huggingface")]


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("step")
    return {case: open_checkpoint(tiny(*case, folder)) for case in CASES}


def ops_of(program, kind):
    return [op for op in program.ops if isinstance(op, kind)]


@pytest.mark.parametrize("name", ["step35", "step35-plain"])
def test_both_formats_make_one_program(opened, name):
    """But for the norms, whose weights have one added in a file, and rounding of its numbers."""
    programs = [open_model(opened[name, kind]).program for kind in ("gguf", "huggingface")]
    assert [type(op) for op in programs[0].ops] == [type(op) for op in programs[1].ops]
    assert programs[0].weights == programs[1].weights and programs[0].states == programs[1].states
    for kind in (Attention, LimitedActivation):
        assert ops_of(programs[0], kind) == [
            replace(op, **({"limit": pytest.approx(op.limit)} if kind is LimitedActivation else {}))
            for op in ops_of(programs[1], kind)
        ]


@pytest.mark.parametrize("kind", ["gguf", "huggingface"])
def test_layers_with_a_window_have_heads_and_a_rotation_of_their_own(opened, kind):
    program = open_model(opened["step35", kind]).program
    assert [(op.heads, op.key_heads, op.window) for op in ops_of(program, Attention)] == [
        (4, 2, None), (6, 2, 8), (6, 2, 8), (4, 2, None)]  # fmt: skip
    gates = [op for op in ops_of(program, GatedActivation) if op.activation == "sigmoid"]
    assert [(op.gate.width, op.up.width) for op in gates] == [(4, 128), (6, 192), (6, 192), (4, 128)]
    whole, local = (ops_of(program, Rope)[at].rope.frequencies for at in (0, 2))
    assert (len(whole), len(local)) == (8, 16) and local[1] == pytest.approx(1e4 ** (-1 / 16))
    assert whole[7] == pytest.approx(5e5 ** (-7 / 8) / 2)  # a slow pair is stretched as llama 3's are


def test_limits_of_experts_shared_experts_and_the_dense_layer(opened):
    for kind in ("gguf", "huggingface"):
        found = [(op.out.buffer.name, op.limit) for op in ops_of(open_model(opened["step35", kind]).program, LimitedActivation)]
        expected = [("gate_up", 0.25), ("experts", 0.3), ("experts", 0.2), ("shared_experts", 0.4)]
        assert [(name, pytest.approx(limit)) for name, limit in expected] == found
        assert ops_of(open_model(opened["step35-plain", kind]).program, LimitedActivation) == []
    one = open_model(with_keys(opened["step35-plain", "gguf"], step35__swiglu_clamp_exp=0.5)).program  # for all layers
    assert [op.limit for op in ops_of(one, LimitedActivation)] == [0.5] * 4


def test_the_router(opened):
    for kind in ("gguf", "huggingface"):
        routes = ops_of(open_model(opened["step35", kind]).program, Route)
        assert [(op.layer, op.gating, op.bias is not None, op.renormalise, op.scale) for op in routes] == [
            (layer, "sigmoid", True, True, 3.0) for layer in (1, 2, 3)]  # fmt: skip


def test_a_directory_as_transformers_5_writes_it(opened):
    """Other names, the rotation by kind of layer, heads by layer."""
    checkpoint = opened["step35", "huggingface"]
    old = checkpoint.metadata["config.json"]
    gone = ("attention_other_setting", "rope_theta", "partial_rotary_factors", "rope_scaling", "moe_layers_enum",
            "moe_num_experts", "moe_top_k", "num_attention_groups")  # fmt: skip
    whole, local = ({"rope_theta": base, "partial_rotary_factor": share} for base, share in ((5e5, 0.5), (1e4, 1.0)))
    new = {"num_sliding_attention_heads": 6, "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"], "n_routed_experts": 8,
           "per_layer_config": {"1": {"num_attention_heads": 6}, "2": {"num_attention_heads": 6}}, "num_experts_per_tok": 3,
           "rope_parameters": {"full_attention": old["rope_scaling"] | whole,
                               "sliding_attention": {"rope_type": "default"} | local},
           "num_key_value_heads": 2, "query_pre_attn_scalar": 32}  # fmt: skip
    config = {name: value for name, value in old.items() if name not in gone} | new
    changed = replace(checkpoint, metadata={"config.json": config})
    spec = open_model(changed)
    assert spec.program == open_model(checkpoint).program and spec.notices == ()


def test_step_37_in_its_wrapper_with_layers_that_predict(tmp_path, opened):
    """As published: the language model beside one of images, three layers behind the last one, lists that go on with them."""
    path = tiny("step35", "huggingface", tmp_path)
    inner = json.loads((path / "config.json").read_text())
    lists = {"layer_types": "sliding_attention", "rope_theta": 10000.0, "partial_rotary_factors": 1.0, "swiglu_limits": 0.0,
             "swiglu_limits_shared": 0.0}  # fmt: skip
    inner |= {"num_nextn_predict_layers": 1} | {name: [*inner[name], more] for name, more in lists.items()}
    outer = {"model_type": "step3p7", "architectures": ["Step3p7ForConditionalGeneration"], "text_config": inner}
    (path / "config.json").write_text(json.dumps(outer | {"vision_config": {"width": 32}, "projector_bias": False}))
    checkpoint = open_checkpoint(path)
    tensor = checkpoint.tensors["model.norm.weight"]
    extra = ("model.layers.4.enorm.weight", "model.layers.4.moe.gate.weight", "model.layers.4.transformer.shared_head.norm.weight",
             "vision_model.ln_pre.weight", "vit_large_projector.weight")  # fmt: skip
    more = {name: replace(tensor, name=name) for name in extra}
    spec = open_model(replace(checkpoint, tensors={**checkpoint.tensors, **more}))
    assert spec.program == open_model(opened["step35", "huggingface"]).program
    assert [notice.split(" part")[0] for notice in spec.notices] == ["the vision", "the multi-token prediction"]
    _, step = open_step(path)
    np.testing.assert_allclose(run(step, prompt_of("step35"))[VALUES["rows"]], VALUES["step35.logits"], rtol=0, atol=TOLERANCE)


def test_layers_that_predict_in_a_gguf_file(opened):
    checkpoint = opened["step35", "gguf"]
    keys = checkpoint.metadata
    extra = {"attention.head_count": 6, "attention.head_count_kv": 2, "attention.sliding_window_pattern": True,
             "swiglu_clamp_exp": 0.0, "swiglu_clamp_shexp": 0.0}  # fmt: skip
    longer = {f"step35.{name}": [*np.array(keys[f"step35.{name}"]).tolist(), value] for name, value in extra.items()}
    more = {"step35.block_count": 5, "step35.nextn_predict_layers": 1, **longer}
    names = ("blk.4.nextn.eh_proj.weight", "blk.4.attn_norm.weight")
    tensors = {name: replace(checkpoint.tensors["output_norm.weight"], name=name) for name in names}
    changed = replace(checkpoint, metadata={**keys, **more}, tensors={**checkpoint.tensors, **tensors})
    assert open_model(changed).program == open_model(checkpoint).program


_FLASH = {  # config.json of Step-3.5-Flash: a copy (Tawheeb123/Step-3.5-Flash), the limits as a port to ZML and sgl_jax tell them
    "model_type": "step3p5", "hidden_size": 4096, "intermediate_size": 11264, "num_hidden_layers": 45, "vocab_size": 128896,
    "max_position_embeddings": 262144, "max_seq_len": 262144, "num_attention_heads": 64, "num_attention_groups": 8,
    "head_dim": 128, "use_moe": True, "moe_num_experts": 288, "moe_top_k": 8, "moe_intermediate_size": 1280,
    "share_expert_dim": 1280, "moe_layer_offset": 0, "moe_every_n_layer": 1, "moe_layers_enum": ",".join(map(str, range(3, 45))),
    "norm_expert_weight": True, "moe_router_activation": "sigmoid", "moe_router_scaling_factor": 3.0, "use_moe_router_bias": True,
    "need_fp32_gate": True, "sliding_window": 512, "use_head_wise_attn_gate": True, "use_qk_norm": True, "zero_centered": True,
    "layer_types": ["full_attention" if layer % 4 == 0 else "sliding_attention" for layer in range(48)],
    "attention_other_setting": {"attention_type": "sliding_attention", "num_attention_heads": 96, "num_attention_groups": 8,
                                "head_dim": 128, "true_head_dim": 128},
    "rope_theta": [5e6 if layer % 4 == 0 else 1e4 for layer in range(48)], "num_nextn_predict_layers": 3,
    "partial_rotary_factors": [0.5 if layer % 4 == 0 else 1.0 for layer in range(48)], "yarn_only_types": ["full_attention"],
    "rope_scaling": {"rope_type": "llama3", "factor": 2.0, "original_max_position_embeddings": 131072, "low_freq_factor": 1.0,
                     "high_freq_factor": 32.0},
    "swiglu_limits": [0.0] * 43 + [7.0, 7.0, 0.0, 0.0, 0.0], "swiglu_limits_shared": [0.0] * 44 + [16.0, 0.0, 0.0, 0.0],
}  # fmt: skip


def test_the_published_size(opened):
    """196 billion parameters, 11 for a token; no key is left over."""
    config, program = described(_FLASH)
    tensor = opened["step35", "huggingface"].tensors["model.norm.weight"]
    sizes = measure(
        program, {name: replace(tensor, shape=shape) for name, shape in program.weights.items()}, ("token_embd.weight",)
    )
    assert (int(sizes.parameters / 1e9), round(sizes.active_parameters / 1e9)) == (196, 11)
    assert (config.heads_of(0).heads, config.heads_of(1).heads) == (64, 96)
    assert (config.rope.width, config.local_rope.width, config.rope.kind, config.local_rope.kind) == (64, 128, "llama3", "none")
    assert [op.limit for op in ops_of(program, LimitedActivation)] == [7, 7, 16]
    plain, _ = described(_FLASH | {"layer_types": None, "rope_theta": 1e4, "partial_rotary_factors": None, "moe_layers_enum": None})
    assert set(plain.windows) == {None} and plain.mixture.layers == config.mixture.layers  # as transformers has it


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_theta": [5e5, 1e4, 2e4, 5e5]}, "rope_theta is"),
        ({"rope_theta": [5e5, 1e4]}, "rope_theta is"),
        ({"partial_rotary_factors": [0.5, {}, 1.0, 0.5]}, "rope_theta is"),
        ({"yarn_only_types": ["sliding_attention"]}, "yarn_only_types is"),
        ({"moe_layers_enum": "1,x"}, "moe_layers_enum is '1,x'"),
        ({"attention_other_setting": {"num_attention_heads": 5}}, "5 heads do not divide over 2 key heads"),
        ({"attention_other_setting": {"head_dim": 16}}, "head_dim is 16, that of the other layers 32"),
        ({"attention_other_setting": 6}, "attention_other_setting is 6"),
        ({"attention_other_setting": {"sliding_window": 4}}, r"sliding_window is 4; .*ignore_keys=\['attention_other_setting.sl"),
        ({"attention_other_setting": {"attention_type": "full_attention"}}, "attention_type is 'full_attention'"),
        ({"attention_other_setting": {"true_head_dim": 16}}, "true_head_dim is 16"),
        ({"use_head_wise_attn_gate": False}, "use_head_wise_attn_gate is False"),
        ({"moe_router_activation": "tanh"}, "moe_router_activation is 'tanh'"),
        ({"swiglu_limits": [0.0, 7.0]}, "swiglu_limits must be a limit for each of the 4 layers"),
        ({"swiglu_limits_shared": [0.0, 0.0, 0.0, -1.0]}, "swiglu_limits_shared must be a limit"),
        ({"hidden_act": "gelu_pytorch_tanh"}, "hidden_act is gelu_tanh; this version knows silu"),
        ({"layer_types": ["full_attention", "linear", "sliding_attention", "full_attention"]}, "layer_types must name"),
        ({"share_expert_dim": 32}, "has shape"),
    ],
)
def test_refused_configs(opened, changes, message):
    with pytest.raises((UnsupportedModelError, WeightError), match=message):
        open_model(with_config(opened["step35", "huggingface"], **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"moe_every_n_layers": 2}, "moe_every_n_layers is not 1"),
        ({"attention.head_count": [4, 6, 6]}, "head_count must be an integer"),
        ({"attention.head_count": [4, 6, 4, 4]}, "head_count_kv differs between layers of one kind"),
        ({"swiglu_clamp_exp": [0.0] * 3}, "swiglu_clamp_exp must be a limit for each of the 4 layers"),
        ({"swiglu_clamp_shexp": "7"}, "swiglu_clamp_shexp must be a limit"),
        ({"rope.dimension_count": 30}, "15 rotated values"),
    ],
)
def test_refused_keys(opened, changes, message):
    with pytest.raises((UnsupportedModelError, WeightError), match=message):
        open_model(with_keys(opened["step35", "gguf"], **{f"step35.{name}": value for name, value in changes.items()}))
