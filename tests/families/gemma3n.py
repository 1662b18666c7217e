"""Gemma 3n: four residual streams, a learned residual layer, embeddings for each layer, a shared KV cache, sparse gates."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np

from tests.families import gemma4
from tests.families.family import Arrays, Config, Family, renamed

_BASE: Config = {
    "model_type": "gemma3n_text",
    "head_dim": 16,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-6,
    "pad_token_id": 0,
    "num_hidden_layers": 6,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
    "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
                        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}},
    "final_logit_softcapping": 3.0,
    "hidden_size_per_layer_input": 16,
    "vocab_size_per_layer_input": 320,
    "num_kv_shared_layers": 3,
    "activation_sparsity_pattern": [0.95, 0.5, 0.8, 0.0, 0.0, 0.0],
    "altup_num_inputs": 4,
    "altup_active_idx": 0,
    "altup_correct_scale": True,
    "laurel_rank": 8,
}  # fmt: skip
NAMES = gemma4.NAMES | {
    "laurel.linear_left": "laurel_l", "laurel.linear_right": "laurel_r", "laurel.post_laurel_norm": "laurel_post_norm",
    "altup.correction_coefs": "altup_correct_coef", "altup.prediction_coefs": "altup_predict_coef",
    "altup.modality_router": "altup_router", "altup.router_norm": "altup_router_norm",
}  # fmt: skip
_SCALE, _STACKS = (
    "altup.correct_output_scale",
    {"altup_projections": "altup_proj", "altup_unembed_projections": "altup_unembd_proj"},
)


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    d, f, h, k, c, p, layers, s = (
        config[key]
        for key in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim",
                    "hidden_size_per_layer_input", "num_hidden_layers", "altup_num_inputs")
    )  # fmt: skip
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], d), "model.norm.weight": (d,),
        "model.embed_tokens_per_layer.weight": (config["vocab_size_per_layer_input"], layers * p),
        "model.per_layer_model_projection.weight": (layers * p, d), "model.per_layer_projection_norm.weight": (p,),
    }  # fmt: skip
    found |= {f"model.{stack}.{stream}.weight": (d, d) for stack in _STACKS for stream in range(s - 1)}
    for layer in range(layers):
        block: dict[str, tuple[int, ...]] = {
            "self_attn.q_proj.weight": (h * c, d), "self_attn.o_proj.weight": (d, h * c), "self_attn.q_norm.weight": (c,),
            "mlp.gate_proj.weight": (f, d), "mlp.up_proj.weight": (f, d), "mlp.down_proj.weight": (d, f),
            "per_layer_input_gate.weight": (p, d), "per_layer_projection.weight": (d, p),
            "laurel.linear_left.weight": (config["laurel_rank"], d), "laurel.linear_right.weight": (d, config["laurel_rank"]),
            "altup.correction_coefs.weight": (s, s), "altup.prediction_coefs.weight": (s * s, s),
            "altup.modality_router.weight": (s, d), _SCALE: (d,),
        }  # fmt: skip
        norms = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm",
                 "post_per_layer_input_norm", "laurel.post_laurel_norm", "altup.router_norm")  # fmt: skip
        block |= {f"{norm}.weight": (d,) for norm in norms}
        if layer < layers - config["num_kv_shared_layers"]:
            block |= {"self_attn.k_proj.weight": (k * c, d), "self_attn.v_proj.weight": (k * c, d), "self_attn.k_norm.weight": (c,)}
        found |= {f"model.layers.{layer}.{part}": shape for part, shape in block.items()}
    return found


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """The router's input is divided by D, which its weights make up for; streams must not outgrow each other layer by layer."""
    from tests.checkpoints import draw as usual

    if name.endswith("modality_router.weight"):
        return usual(name, shape, gemma=False) * np.float32(shape[1] / 2)
    if name.endswith("_coefs.weight"):
        return usual(name, shape, gemma=False) * np.float32(0.2)
    return gemma4.draw(name, shape)


def metadata(config: Config) -> dict[str, Any]:
    normal = NormalDist()
    scales = [normal.inv_cdf(share) if share else -np.inf for share in config["activation_sparsity_pattern"]]
    return {
        "attention.shared_kv_layers": config["num_kv_shared_layers"],
        "embedding_length_per_layer_input": config["hidden_size_per_layer_input"],
        "attention.sliding_window": config["sliding_window"], "attention.sliding_window_pattern": gemma4.sliding(config),
        "rope.freq_base": 1000000.0, "rope.freq_base_swa": 10000.0, "final_logit_softcapping": config["final_logit_softcapping"],
        "altup.num_inputs": config["altup_num_inputs"], "altup.active_idx": config["altup_active_idx"],
        "activation_sparsity_scale": [float(scale) for scale in scales],
    }  # fmt: skip


def tensors(config: Config, weights: Arrays) -> Arrays:
    special = {name for name in weights if name.endswith(_SCALE) or name.split(".")[1] in _STACKS}
    found = renamed({name: value for name, value in weights.items() if name not in special}, NAMES)
    for name in special:
        if name.endswith(_SCALE):
            found[f"blk.{name.split('.')[2]}.altup_correct_scale.weight"] = weights[name]
    for theirs, ours in _STACKS.items():
        each = [weights[f"model.{theirs}.{stream}.weight"] for stream in range(config["altup_num_inputs"] - 1)]
        found[f"{ours}.weight"] = np.stack(each)
    missing = config["vocab_size"] - config["vocab_size_per_layer_input"]  # the converter writes zeros for these
    table = found["per_layer_token_embd.weight"]
    return found | {"per_layer_token_embd.weight": np.concatenate([table, np.zeros((missing, table.shape[1]), np.float32)])}


FAMILY = Family(
    types={"gemma3n_text": ("gemma3n", "Gemma3nForCausalLM")},
    cases={
        "gemma3n": _BASE,
        # ids from 256 on take row 0, where a converter would write rows of zeros
        "gemma3n-others": _BASE
        | {"vocab_size_per_layer_input": 256, "altup_num_inputs": 3, "altup_active_idx": 1, "altup_correct_scale": False}
        | {"num_kv_shared_layers": 0, "activation_sparsity_pattern": None},
    },
    only_huggingface=("gemma3n-others",),
    shapes=shapes,
    metadata=metadata,
    tensors=tensors,
    draw=draw,
)
