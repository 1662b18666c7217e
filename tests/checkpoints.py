"""Tiny random checkpoints of every architecture, made again from a seed by each test that wants one; no torch.

`tiny("llama", "gguf", tmp_path)` writes a file (or folder) and gives its path. Weights come from raw bits of PCG64, so that
they are the same everywhere; `tests/data/golden` holds what transformers makes of them (`tools/make_golden.py`).
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tests import mixtures
from tests.families import FAMILIES

VOCAB = 320  # 256 bytes, merges, and the special tokens of tests.tokens

_BASE: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "max_position_embeddings": 256,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 317,
    "eos_token_id": 319,
}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
_PHI3 = {"model_type": "phi3", "pad_token_id": 0, "sliding_window": None}
_LONGROPE = {
    "partial_rotary_factor": 0.5,
    "rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.1, 1.3, 1.6], "long_factor": [1.0, 2.0, 5.0, 9.0]},
}
_GEMMA = {
    "model_type": "gemma",
    "head_dim": 32,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-6,
    "pad_token_id": 0,
}
_GEMMA2 = _GEMMA | {
    "model_type": "gemma2",
    "num_hidden_layers": 4,
    "sliding_window": 8,
    "query_pre_attn_scalar": 20,
    "attn_logit_softcapping": 2.0,
    "final_logit_softcapping": 3.0,
}
_GEMMA3 = _GEMMA | {
    "model_type": "gemma3_text",
    "num_hidden_layers": 6,
    "num_key_value_heads": 1,
    "sliding_window": 8,
    "query_pre_attn_scalar": 32,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
}
# config.json of each case; sizes are small, and every special value is large enough to change the logits clearly
CASES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama-tied": {"tie_word_embeddings": True, "num_key_value_heads": 4, "head_dim": 32},
    "llama-llama3": {"rope_theta": 500000.0, "rope_scaling": _LLAMA3_ROPE},
    "llama-linear": {"rope_scaling": {"type": "linear", "factor": 4.0}},
    "llama-yarn": {"rope_scaling": _YARN},
    "llama-biases": {"attention_bias": True, "mlp_bias": True},
    "mistral": {"model_type": "mistral", "sliding_window": 8, "head_dim": 32},
    "mistral-full": {"model_type": "mistral", "sliding_window": None},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True, "rope_theta": 1000000.0, "rms_norm_eps": 1e-6},
    "qwen2-window": {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    "qwen3": {"model_type": "qwen3", "head_dim": 32, "rope_theta": 1000000.0, "rms_norm_eps": 1e-6},
    "qwen3-yarn": {"model_type": "qwen3", "head_dim": 32, "rope_scaling": _YARN | {"beta_fast": 4.0, "beta_slow": 2.0}},
    "phi3": _PHI3 | {"sliding_window": 12},
    "phi3-short": _PHI3 | _LONGROPE | {"original_max_position_embeddings": 64},
    "phi3-long": _PHI3 | _LONGROPE | {"original_max_position_embeddings": 16},
    "gemma": _GEMMA,
    "gemma2": _GEMMA2,
    "gemma3": _GEMMA3,
    "gemma3-linear": _GEMMA3 | {"rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    # without golden values: wide enough for 256-value blocks, and long enough for a conversation
    "llama-wide": {"hidden_size": 256, "intermediate_size": 512, "num_key_value_heads": 2, "max_position_embeddings": 2048},
    "gemma3-wide": _GEMMA3 | {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64, "max_position_embeddings": 2048},
}
CASES |= mixtures.CASES
for _family in FAMILIES.values():
    CASES |= _family.cases
GOLDEN = [name for name in CASES if not name.endswith("-wide")]
ONLY_HUGGINGFACE = {name for family in FAMILIES.values() for name in family.only_huggingface}  # what a GGUF file cannot say
CONTEXTS = {"phi3-long": 256}  # where the golden values belong to another context than the default one


def config_of(name: str) -> dict[str, Any]:
    """The whole config.json of a case."""
    config = _BASE | CASES[name]
    if config["model_type"] in FAMILIES:
        kind = FAMILIES[config["model_type"]].types[config["model_type"]][1]
        return config | {"architectures": [kind], "torch_dtype": "float32"}
    kind = ({"gemma3_text": "Gemma3"} | mixtures.CLASSES).get(config["model_type"], config["model_type"].capitalize())
    return config | {"architectures": [f"{kind}ForCausalLM"], "torch_dtype": "float32"}


def prompt_of(name: str, count: int = 24) -> list[int]:
    """Ids of ordinary tokens, different for each case."""
    raw = np.random.PCG64(zlib.crc32(f"{name} ids".encode())).random_raw(count)
    return [int(value % 256) for value in raw]


def tiny(name: str, format: str, folder: Path, quant: str = "F32", **changes: Any) -> Path:
    """Write the case `name` as "gguf" or "huggingface" below `folder`; `changes` go into config.json.

    "gguf-naive": as older converters wrote keys and values of latent attention, in one matrix.

    `quant`: of the matrices. A GGUF file takes every block type (random blocks where there is no quantiser; rows of "-wide"
    cases hold 256-value blocks), a Hugging Face folder F32, F16 or BF16.
    """
    from tests import checkpoint_files

    config = config_of(name) | changes
    target = folder / f"{name}-{quant}"
    if format.startswith("gguf"):
        return checkpoint_files.write_gguf(target.with_suffix(".gguf"), config, weights_of(config), quant, format == "gguf-naive")
    return checkpoint_files.write_huggingface(target, config, weights_of(config), quant)


def shapes_of(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Hugging Face names and shapes of all weights of a config."""
    if config["model_type"] in mixtures.CLASSES:
        return mixtures.shapes_of(config)
    if config["model_type"] in FAMILIES:
        return FAMILIES[config["model_type"]].shapes(config)
    d, f, h, k = (config[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"))
    c, kind = config.get("head_dim") or d // h, config["model_type"]
    shapes: dict[str, tuple[int, ...]] = {"embed_tokens": (config["vocab_size"], d), "norm": (d,)}
    block: dict[str, tuple[int, ...]] = {"input_layernorm": (d,), "post_attention_layernorm": (d,)}
    if kind == "phi3":
        block |= {"self_attn.qkv_proj": ((h + 2 * k) * c, d), "mlp.gate_up_proj": (2 * f, d)}
    else:
        block |= {"self_attn.q_proj": (h * c, d), "self_attn.k_proj": (k * c, d), "self_attn.v_proj": (k * c, d)}
        block |= {"mlp.gate_proj": (f, d), "mlp.up_proj": (f, d)}
    block |= {"self_attn.o_proj": (d, h * c), "mlp.down_proj": (d, f)}
    if kind in ("gemma2", "gemma3_text"):
        block |= {"pre_feedforward_layernorm": (d,), "post_feedforward_layernorm": (d,)}
    if kind in ("qwen3", "gemma3_text"):
        block |= {"self_attn.q_norm": (c,), "self_attn.k_norm": (c,)}
    for layer in range(config["num_hidden_layers"]):
        shapes |= {f"layers.{layer}.{part}": shape for part, shape in block.items()}
    named = {f"model.{stem}.weight": shape for stem, shape in shapes.items()}
    for stem, shape in shapes.items():
        if _has_bias(stem, config):
            named[f"model.{stem}.bias"] = shape[:1]
    return named if config["tie_word_embeddings"] else named | {"lm_head.weight": (config["vocab_size"], d)}


def _has_bias(stem: str, config: dict[str, Any]) -> bool:
    part = stem.rpartition(".")[2]
    if part in ("q_proj", "k_proj", "v_proj"):
        return bool(config["model_type"] == "qwen2" or config.get("attention_bias"))
    if part in ("gate_proj", "up_proj", "down_proj"):
        return bool(config.get("mlp_bias"))
    return bool(part == "o_proj" and config.get("attention_bias"))


def weights_of(config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Float32 weights under their Hugging Face names, the same for the same name and shape."""
    kind, found = config["model_type"], {}
    for name, shape in shapes_of(config).items():
        own = FAMILIES[kind].draw(name, shape) if kind in FAMILIES else None
        found[name] = draw(name, shape, kind.startswith("gemma")) if own is None else own
    return found


def draw(name: str, shape: tuple[int, ...], gemma: bool) -> np.ndarray:
    raw = np.random.PCG64(zlib.crc32(name.encode())).random_raw(int(np.prod(shape)))
    values = ((raw >> np.uint64(40)).astype(np.float64) / 2**23 - 1).reshape(shape)  # uniform in [-1, 1)
    if "norm" in name:
        values = values * 0.3 + (0 if gemma else 1)
    elif name.endswith("bias"):
        values = values * 0.3
    elif "embed" in name:
        values = values * (0.12 if gemma else 0.2)
    else:
        values = values * 2 * shape[-1] ** -0.5
    return values.astype(np.float32)
