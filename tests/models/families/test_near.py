"""Families near Llama: real geometries by their published sizes, wrappers, what their configs may say and what is refused."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from lacewing.errors import UnsupportedModelError
from lacewing.formats import open_checkpoint
from lacewing.formats.checkpoint import Checkpoint
from lacewing.models import open_model
from lacewing.models.blocks.decoder import build_program
from lacewing.models.opening import find_architecture
from lacewing.models.readers.huggingface import read_huggingface
from lacewing.program.ops import Attention, Rope, Route, ScaleByPosition
from tests.checkpoints import prompt_of, tiny
from tests.models.golden import TOLERANCE, VALUES
from tests.models.running import open_step, run
from tests.models.test_refusals import with_config, with_keys

_EXAONE = {"model_type": "exaone4", "hidden_size": 5120, "intermediate_size": 27392, "num_hidden_layers": 64,
           "num_attention_heads": 40, "num_key_value_heads": 8, "max_position_embeddings": 131072, "sliding_window": 4096,
           "sliding_window_pattern": "LLLG", "rope_theta": 1000000, "vocab_size": 102400}  # fmt: skip
# config.json of the makers, as far as it is no default, and billions of parameters that they say. Read on the hub: dots.llm1. As
# quoted by others: Hunyuan-A13B (tests of profilers), Seed-OSS (tests of MLX engines), K-EXAONE (tests of TensorRT-LLM, with fewer
# layers: 48 rests on memory and on the count). The classes of transformers have other sizes by default.
PUBLISHED = {
    "Ministral-3-8B": (8.4, {"model_type": "ministral3", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 34,
                             "num_attention_heads": 32}),
    "Qwen1.5-MoE-A2.7B": (14.3, {"model_type": "qwen2_moe", "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24,
                                 "num_attention_heads": 16, "rope_theta": 1000000.0}),
    "Seed-OSS-36B": (36.15, {"model_type": "seed_oss", "hidden_size": 5120, "intermediate_size": 27648, "num_hidden_layers": 64,
                             "num_attention_heads": 80, "rope_theta": 1e7}),
    "ERNIE-4.5-0.3B": (0.36, {"model_type": "ernie4_5", "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 18,
                              "num_attention_heads": 16}),
    "ERNIE-4.5-21B-A3B": (21.8, {"model_type": "ernie4_5_moe", "hidden_size": 2560, "intermediate_size": 12288,
                                 "num_hidden_layers": 28, "num_attention_heads": 20}),
    "Hunyuan-A13B": (80.4, {"model_type": "hunyuan_v1_moe", "hidden_size": 4096, "intermediate_size": 3072, "num_hidden_layers": 32,
                            "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128167,
                            "num_experts": 64, "moe_topk": [8] * 32, "num_shared_expert": [1] * 32, "tie_word_embeddings": True,
                            "moe_intermediate_size": [3072] * 32, "max_position_embeddings": 32768,
                            "rope_scaling": {"alpha": 1000.0, "factor": 1.0, "type": "dynamic"}}),
    "MiniMax-M2": (229, {"model_type": "minimax_m2", "hidden_size": 3072, "intermediate_size": 1536, "num_hidden_layers": 62,
                         "num_attention_heads": 48, "rotary_dim": 64, "scoring_func": "sigmoid"}),
    "dots.llm1": (142, {"model_type": "dots1", "hidden_size": 4096, "intermediate_size": 10944, "num_hidden_layers": 62,
                        "num_attention_heads": 32, "first_k_dense_replace": 1, "norm_topk_prob": True,
                        "routed_scaling_factor": 2.5, "sliding_window": None, "scoring_func": "noaux_tc"}),
    "EXAONE-4.0-32B": (32, _EXAONE),
    "K-EXAONE-236B-A23B": (236, {"model_type": "exaone_moe", "hidden_size": 6144, "intermediate_size": 18432,
                                 "num_hidden_layers": 48, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128,
                                 "vocab_size": 153600, "num_experts": 128, "moe_intermediate_size": 2048,
                                 "sliding_window": 128, "sliding_window_pattern": "LLLG", "scoring_func": "sigmoid",
                                 "topk_method": "noaux_tc"}),
    "Ling-mini-2.0": (16.26, {"model_type": "bailing_moe", "num_hidden_layers": 20, "hidden_size": 2048, "intermediate_size": 5120,
                              "first_k_dense_replace": 1, "moe_intermediate_size": 512, "moe_shared_expert_intermediate_size": 512,
                              "num_shared_experts": 1, "num_experts": 256, "num_experts_per_tok": 8, "n_group": 8,
                              "topk_group": 4, "norm_topk_prob": True, "routed_scaling_factor": 2.5, "score_function": "sigmoid",
                              "moe_router_enable_expert_bias": True, "num_attention_heads": 16, "num_key_value_heads": 4,
                              "head_dim": 128, "use_qk_norm": True, "partial_rotary_factor": 0.5, "rope_theta": 600000,
                              "hidden_act": "silu", "rms_norm_eps": 1e-6, "vocab_size": 157184,
                              "max_position_embeddings": 32768}),
}  # fmt: skip


def described(config):
    """The config and the program of a config.json, without weights."""
    checkpoint = Checkpoint(Path("model"), "safetensors", {"config.json": config}, {})
    architecture = find_architecture(config["model_type"], "model")
    found, notices = read_huggingface(checkpoint, architecture, {})
    assert notices == []
    return found, build_program(found, 4096, architecture.block)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_as_published(name):
    billions, config = PUBLISHED[name]
    _, program = described(config)
    assert sum(math.prod(shape) for shape in program.weights.values()) / 1e9 == pytest.approx(billions, rel=0.02)


def test_exaone_rotates_only_where_it_sees_a_part():
    """Three of four layers, by letters; without windows all layers."""
    config, program = described(_EXAONE)
    assert config.windows[:4] == (4096, 4096, 4096, None)
    assert sum(isinstance(op, Rope) for op in program.ops) == 2 * 48
    _, program = described(_EXAONE | {"sliding_window": None})
    assert sum(isinstance(op, Rope) for op in program.ops) == 2 * 64


def test_hunyuan_and_minimax_and_ling_rotate_as_they_say():
    rope = described(PUBLISHED["Hunyuan-A13B"][1])[0].rope
    assert rope.kind == "none" and rope.base == pytest.approx(11158839.9251)  # as llama.cpp's converter works out
    assert described(PUBLISHED["MiniMax-M2"][1])[0].rope.width == 64
    assert described(PUBLISHED["Ling-mini-2.0"][1])[0].rope.width == 64


def test_routers():
    routes = {name: next(op for op in described(PUBLISHED[name][1])[1].ops if isinstance(op, Route)) for name in (
        "Qwen1.5-MoE-A2.7B", "ERNIE-4.5-21B-A3B", "dots.llm1", "Ling-mini-2.0")}  # fmt: skip
    found = {name: (op.gating, op.bias is not None, op.groups, op.renormalise, op.scale) for name, op in routes.items()}
    assert found == {
        "Qwen1.5-MoE-A2.7B": ("softmax", False, 1, False, 1.0),
        "ERNIE-4.5-21B-A3B": ("softmax", True, 1, True, 1.0),
        "dots.llm1": ("sigmoid", True, 1, True, 2.5),
        "Ling-mini-2.0": ("sigmoid", True, 8, True, 2.5),
    }


def test_ling_of_version_1_has_the_same_model_type():
    _, program = described({"model_type": "bailing_moe", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
                            "num_attention_heads": 4, "num_key_value_heads": 2, "num_experts": 8, "num_experts_per_tok": 2,
                            "num_shared_experts": 2, "moe_intermediate_size": 32, "vocab_size": 320})  # fmt: skip
    route = next(op for op in program.ops if isinstance(op, Route))
    assert (route.gating, route.bias, program.weights["blk.0.ffn_up_shexp.weight"]) == ("softmax", None, (64, 64))
    assert "blk.0.attn_q_norm.weight" not in program.weights


def test_ministral_in_its_wrapper(tmp_path):
    """As published: the language model within a multimodal one."""
    path = tiny("mistral3", "huggingface", tmp_path)
    inner = json.loads((path / "config.json").read_text())
    outer = {"model_type": "mistral3", "architectures": ["Mistral3ForConditionalGeneration"], "text_config": inner}
    (path / "config.json").write_text(json.dumps(outer | {"vision_config": {"model_type": "pixtral"}}))
    spec, step = open_step(path)
    assert spec.architecture == "mistral3" and any(isinstance(op, ScaleByPosition) for op in spec.program.ops)
    found = run(step, prompt_of("mistral3"))[VALUES["rows"]]
    np.testing.assert_allclose(found, VALUES["mistral3.logits"], rtol=0, atol=TOLERANCE)


def test_windows_of_qwen2_with_experts(tmp_path):
    """Unlike Qwen 2: every other of the first layers."""
    checkpoint = open_checkpoint(tiny("qwen2moe", "huggingface", tmp_path, num_hidden_layers=4))
    changed = with_config(checkpoint, use_sliding_window=True, sliding_window=8, max_window_layers=3)
    windows = [op.window for op in open_model(changed).program.ops if isinstance(op, Attention)]
    assert windows == [8, None, 8, None]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("hunyuan-moe", {"moe_topk": [3, 2]}, "moe_topk differs from layer to layer"),
        ("hunyuan-moe", {"num_shared_expert": 2}, "num_shared_expert is not 1"),
        ("hunyuan-dense", {"rope_scaling": {"type": "dynamic", "alpha": -1.0, "factor": 1.0}}, "alpha is -1.0"),
        ("ernie4_5-moe", {"use_bias": True}, "use_bias is true"),
        ("ernie4_5-moe", {"moe_k": 9}, "9 active of 8 experts"),
        ("minimax-m2", {"attn_type_list": [0, 1]}, "linear attention"),
        ("minimax-m2", {"rotary_dim": 15}, "15 rotated values"),
        ("exaone4", {"layer_types": None, "sliding_window_pattern": "LX"}, "sliding_window_pattern"),
        ("bailingmoe2", {"norm_head": True}, "norm_head is true"),
        ("bailingmoe2", {"score_function": "tanh"}, "score_function is 'tanh'"),
        ("lfm2moe", {"num_dense_layers": -1}, "num_dense_layers is -1"),
    ],
)
def test_refused_configs(name, changes, message, tmp_path):
    checkpoint = open_checkpoint(tiny(name, "huggingface", tmp_path))
    with pytest.raises(UnsupportedModelError, match=message):
        open_model(with_config(checkpoint, **changes))


def test_a_gguf_file_may_say_a_stale_width_of_shared_experts(tmp_path):
    """As llama.cpp's converter writes it for ERNIE: the weights hold."""
    checkpoint = open_checkpoint(tiny("ernie4_5-moe", "gguf", tmp_path))
    key = "ernie4_5-moe.expert_shared_feed_forward_length"
    assert open_model(with_keys(checkpoint, **{key: 24})).program == open_model(checkpoint).program
