"""Writes a tiny checkpoint as a Hugging Face folder or a GGUF file, as the usual converters would."""

from __future__ import annotations

import json
import math
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tests import mixtures, tokens
from tests.families import FAMILIES

_NAMES = {
    "embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output", "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.qkv_proj": "attn_qkv", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "mlp.gate_up_proj": "ffn_up", "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm",
}  # fmt: skip
# where the float16 scale and minimum of a block stand, and how many scales the minimum should be worth for a mean near 0
_SCALES = {"Q2_K": (80, 82, 1.5), "Q3_K": (108, None, 0), "Q4_K": (0, 2, 7.5), "Q5_K": (0, 2, 15.5), "Q6_K": (208, None, 0),
           "Q4_1": (0, 2, -7.5), "Q5_1": (0, 2, -15.5), "TQ1_0": (52, None, 0), "TQ2_0": (64, None, 0)}  # fmt: skip


_OF_SCANS = ("ssm_a", "ssm_d", "ssm_norm.weight")  # small, though with two axes


def write_huggingface(folder: Path, config: dict[str, Any], weights: dict[str, np.ndarray], dtype: str = "F32") -> Path:
    """A folder with config, one safetensors file, tokenizer and generation config."""
    folder.mkdir(parents=True)
    names = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    config = config | {"torch_dtype": names[dtype]}
    (folder / "model.safetensors").write_bytes(safetensors_bytes(weights, dtype))
    files = {
        "config.json": config,
        "generation_config.json": {"eos_token_id": [config["eos_token_id"]], "bos_token_id": config["bos_token_id"]},
        "tokenizer.json": tokens.tokenizer_json(config["vocab_size"]),
        "tokenizer_config.json": tokens.tokenizer_config(),
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def safetensors_bytes(weights: dict[str, np.ndarray], dtype: str) -> bytes:
    """A whole safetensors file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    parts, offset = [], 0
    for name, value in weights.items():
        parts.append(as_bytes(value, dtype))
        header[name] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": [offset, offset + len(parts[-1])]}
        offset += len(parts[-1])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(parts)


def as_bytes(values: np.ndarray, dtype: str) -> bytes:
    if dtype == "BF16":
        bits = values.astype(np.float32).view(np.uint32)
        return ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes()
    return values.astype({"F32": np.float32, "F16": np.float16}[dtype]).tobytes()


def write_gguf(path: Path, config: dict[str, Any], weights: dict[str, np.ndarray], quant: str = "F32", naive: bool = False) -> Path:
    """One GGUF file, q and k permuted and norms made ready as the family asks for."""
    kind = config["model_type"]
    if kind in FAMILIES:
        family = FAMILIES[kind]
        keys = metadata(config) | family.metadata(config)
        architecture = family.architecture(config) if family.architecture else family.types[kind][0]
        found = rope_tensors(config) | family.tensors(config, weights)
        return write_gguf_tensors(path, architecture, keys, found, quant)
    architecture = ({"mistral": "llama", "gemma3_text": "gemma3"} | mixtures.ARCHITECTURES).get(kind, kind)
    mixture = kind in mixtures.CLASSES
    keys = metadata(config) | (mixtures.metadata(config, naive) if mixture else {})
    found = mixtures.tensors(config, weights, naive) if mixture else tensors(config, weights, architecture)
    return write_gguf_tensors(path, architecture, keys, found, quant)


def write_gguf_tensors(path: Path, architecture: str, keys: dict[str, Any], found: dict[str, np.ndarray], quant: str) -> Path:
    """A GGUF file with these keys below the architecture's name, these tensors and the tiny vocabulary."""
    import gguf

    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")  # llama.cpp expects other tokens of a model named phi3
    for key, value in keys.items():
        add = {
            bool: writer.add_bool,
            int: writer.add_uint32,
            float: writer.add_float32,
            str: writer.add_string,
            list: writer.add_array,
        }
        add[type(value)](f"{architecture}.{key}", value)
    _add_tokenizer(writer, len(found["token_embd.weight"]))
    for name, value in found.items():
        kind_of_tensor = gguf.GGMLQuantizationType[quant]
        if (
            value.ndim == 1
            or quant == "F32"
            or value.shape[-1] % gguf.GGML_QUANT_SIZES[kind_of_tensor][0]  # then the usual converters do not quantise it either
            or name.endswith((".bias", "ffn_gate_inp.weight", "shortconv.conv.weight", *_OF_SCANS))
            or ".ssm_conv1d" in name
        ):
            writer.add_tensor(name, value)
        else:
            writer.add_tensor(name, quantised(name, value, quant), raw_dtype=kind_of_tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def metadata(config: dict[str, Any]) -> dict[str, Any]:
    """The keys below the architecture's name."""
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or config["hidden_size"] // heads
    keys: dict[str, Any] = {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": heads,
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "rope.freq_base": config["rope_theta"],
        "rope.dimension_count": int(head * config.get("partial_rotary_factor", 1)),
        "vocab_size": config["vocab_size"],
    }
    if "head_dim" in config:
        keys |= {"attention.key_length": head, "attention.value_length": head}
    return keys | _window_keys(config) | _rope_keys(config) | _gemma_keys(config, head)


def _window_keys(config: dict[str, Any]) -> dict[str, Any]:
    window = config.get("sliding_window") or 0
    if config["model_type"] in ("qwen2", "qwen3"):
        if not config.get("use_sliding_window"):
            return {}
        pattern = [layer >= config["max_window_layers"] for layer in range(config["num_hidden_layers"])]
        return {"attention.sliding_window": window, "attention.sliding_window_pattern": pattern}
    return {"attention.sliding_window": window} if window else {}


def _rope_keys(config: dict[str, Any]) -> dict[str, Any]:
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind == "linear":
        return {"rope.scaling.type": "linear", "rope.scaling.factor": scaling["factor"]}
    if kind == "yarn":
        keys = {"rope.scaling.type": "yarn", "rope.scaling.factor": scaling["factor"],
                "rope.scaling.original_context_length": scaling["original_max_position_embeddings"]}  # fmt: skip
        return keys | {f"rope.scaling.yarn_{beta}": scaling[beta] for beta in ("beta_fast", "beta_slow") if beta in scaling}
    if kind == "longrope":
        original = config["original_max_position_embeddings"]
        magnitude = math.sqrt(1 + math.log(config["max_position_embeddings"] / original) / math.log(original))
        return {"rope.scaling.original_context_length": original, "rope.scaling.attn_factor": magnitude}
    return {}


def _gemma_keys(config: dict[str, Any], head: int) -> dict[str, Any]:
    keys = {name: config[name] for name in ("attn_logit_softcapping", "final_logit_softcapping") if name in config}
    if config.get("query_pre_attn_scalar", head) != head:
        keys["attention.scale"] = config["query_pre_attn_scalar"] ** -0.5
    return keys


def tensors(config: dict[str, Any], weights: dict[str, np.ndarray], architecture: str) -> dict[str, np.ndarray]:
    """Weights under their GGUF names, ready to multiply."""
    found = rope_tensors(config)
    for name, value in weights.items():
        stem, _, kind = name.removeprefix("model.").rpartition(".")
        match = re.fullmatch(r"layers\.(\d+)\.(.+)", stem)
        part = match.group(2) if match else stem
        ours = _NAMES[part]
        if part == "post_attention_layernorm" and architecture in ("gemma2", "gemma3"):
            ours = "post_attention_norm"
        if "norm" in ours and architecture.startswith("gemma"):
            value = value + 1
        if ours in ("attn_q", "attn_k") and architecture == "llama":
            heads = config["num_attention_heads" if ours == "attn_q" else "num_key_value_heads"]
            value = value.reshape(heads, 2, -1, *value.shape[1:]).swapaxes(1, 2).reshape(value.shape)
        found[f"blk.{match.group(1)}.{ours}.{kind}" if match else f"{ours}.{kind}"] = np.ascontiguousarray(value)
    return found


def rope_tensors(config: dict[str, Any]) -> dict[str, np.ndarray]:
    scaling = config.get("rope_scaling") or {}
    if "long_factor" in scaling:
        return {f"rope_factors_{kind}.weight": np.array(scaling[f"{kind}_factor"], np.float32) for kind in ("long", "short")}
    if scaling.get("rope_type") != "llama3" or isinstance(config["rope_theta"], list):  # a list: the family's own
        return {}
    divisors = []
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    original, low, high = (scaling[key] for key in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor"))
    for i in range(0, head, 2):
        wave = 2 * math.pi * config["rope_theta"] ** (i / head)
        if wave < original / high or wave > original / low:
            divisors.append(1 if wave < original / high else scaling["factor"])
            continue
        t = (original / wave - low) / (high - low)
        divisors.append(1 / ((1 - t) / scaling["factor"] + t))
    return {"rope_freqs.weight": np.array(divisors, np.float32)}


def quantised(name: str, values: np.ndarray, quant: str) -> np.ndarray:
    """Blocks of `values`; random blocks of about their size where the gguf package cannot quantise."""
    import gguf

    kind = gguf.GGMLQuantizationType[quant]
    if quant == "F16":
        return values.astype(np.float16)
    try:
        return gguf.quants.quantize(values, kind)
    except NotImplementedError:
        pass
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    count = values.size // elements
    raw = np.random.PCG64(zlib.crc32(f"{name} {quant}".encode())).random_raw(-(-count * size // 8))
    blocks = raw.view(np.uint8)[: count * size].reshape(count, size).copy()
    scale, minimum, ratio = _SCALES.get(quant, (0, None, 0))
    for pass_scale in (1.0, None):
        if pass_scale is None:  # the size of the values is known now
            with np.errstate(all="ignore"):
                found = gguf.quants.dequantize(blocks[:64], kind)
            pass_scale = float(values.std() / np.std(found))
        for at, factor in ((scale, 1.0), (minimum, ratio)):
            if at is not None:
                blocks[:, at : at + 2] = np.array([pass_scale * factor], np.float16).view(np.uint8)
    return blocks.reshape(*values.shape[:-1], -1)


def _add_tokenizer(writer: Any, size: int) -> None:
    texts = tokens.vocabulary(size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(texts)
    writer.add_token_types([3 if text in tokens.SPECIALS else 5 if text.startswith("[UNUSED") else 1 for text in texts])
    writer.add_token_merges(tokens.MERGES)
    writer.add_bos_token_id(size - 3)
    writer.add_eos_token_id(size - 1)
    writer.add_pad_token_id(size - 4)
    writer.add_add_bos_token(False)
    writer.add_chat_template(tokens.TEMPLATE)
