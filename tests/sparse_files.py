"""Large models as sparse files: whole headers, and weights that are holes and read as zeros.

    write(name, "gguf", folder)          a GGUF file, split as publishers split it, with a vocabulary of the real size
    write(name, "gguf-naive", folder)    the same with keys and values of latent attention in one matrix, as older converters wrote
    write(name, "huggingface", folder)   a directory as the makers publish it: FP8, MXFP4 or BF16, shards with an index

Norms are ones and a few rows of the embedding and the output are there, so that the logits of a step are known on paper.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests import mixtures, tokens
from tests.checkpoint_files import metadata, rope_tensors
from tests.geometries import config_of

WRITTEN = 8  # first rows of the embedding and the output that are no holes
_IDS = {"F32": 0, "F16": 1, "Q8_0": 8, "Q4_K": 12, "BF16": 30, "MXFP4": 39}
_SIZES = {"F32": (1, 4), "F16": (1, 2), "BF16": (1, 2), "Q8_0": (32, 34), "Q4_K": (256, 144), "MXFP4": (32, 17),
          "F8_E4M3": (1, 1), "U8": (1, 1)}  # fmt: skip
_SHARD = 45 * 2**30  # bytes of a part of a split GGUF file, as publishers cut them
_SHARD_HF = 5 * 2**30


def write(name: str, form: str, folder: Path, layers: int | None = None) -> Path:
    """The path to open: a GGUF file (the first, of a split one) or a directory."""
    config = config_of(name, layers)
    folder.mkdir(parents=True, exist_ok=True)
    config["naive"] = form == "gguf-naive"
    return (
        _write_gguf(name, config, folder)
        if form.startswith("gguf")
        else _write_huggingface({key: value for key, value in config.items() if key != "naive"}, folder / name)
    )


def expected_logits(config: dict[str, Any], token: int) -> np.ndarray:
    """Of the first WRITTEN tokens after one token: nothing is added to the embedding on its way to the output."""
    x = _row(token, config["hidden_size"])
    x = x / np.sqrt((x**2).mean() + config["rms_norm_eps"])
    return np.array([_row(100 + row, config["hidden_size"]) @ x for row in range(WRITTEN)])


def _row(seed: int, width: int) -> np.ndarray:
    """Multiples of 1 / 16 that F16, BF16 and Q8_0 hold exactly."""
    return np.random.Generator(np.random.PCG64(seed)).integers(-127, 128, width) / 16.0


def _row_bytes(seed: int, width: int, kind: str) -> bytes:
    values = _row(seed, width)
    if kind == "BF16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    blocks = np.zeros((width // 32, 34), np.uint8)
    blocks[:, :2] = np.array([1 / 16], np.float16).view(np.uint8)
    blocks[:, 2:] = (values * 16).astype(np.int8).view(np.uint8).reshape(-1, 32)
    return blocks.tobytes()


def _nbytes(shape: tuple[int, ...], kind: str) -> int:
    elements, size = _SIZES[kind]
    return math.prod(shape) // elements * size


def _content(name: str, shape: tuple[int, ...], kind: str) -> bytes | None:
    """What stands in the file; None: a hole."""
    if len(shape) == 1 and "norm" in name:
        return {"F32": np.ones(shape, np.float32), "BF16": np.full(shape, 0x3F80, np.uint16)}[kind].tobytes()
    if name.endswith(("token_embd.weight", "embed_tokens.weight")):
        return b"".join(_row_bytes(row, shape[1], kind) for row in range(WRITTEN))
    if name.endswith(("output.weight", "lm_head.weight")) and "attn" not in name:
        return b"".join(_row_bytes(100 + row, shape[1], kind) for row in range(WRITTEN))
    return None


# ---- GGUF ----


def gguf_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """GGUF names and shapes (outermost first) of all weights, as the usual converter writes them."""
    found = {}
    for name, shape in mixtures.shapes_of(config).items():
        layer, _, part = name.removeprefix("model.layers.").partition(".")
        if not name.startswith("model.layers."):
            found[
                {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}.get(
                    name, "output.weight"
                )
            ] = shape
        else:
            found |= {f"blk.{layer}.{ours}": size for ours, size in _block_shapes(config, part, shape)}
    return found


def _block_shapes(config: dict[str, Any], part: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    stem, _, kind = part.rpartition(".")
    last = stem.rpartition(".")[2]
    if part == "post_attention_layernorm.weight":
        late = config["model_type"] in ("gpt_oss", "glm4_moe")
        yield "post_attention_norm.weight" if late else "ffn_norm.weight", shape
    elif part == "mlp.gate.e_score_correction_bias":
        yield "exp_probs_b.bias", shape
    elif part == "self_attn.sinks":
        yield "attn_sinks.weight", shape
    elif ".experts.gate_up_proj" in part or ".experts.down_proj" in part:
        yield from _stacks(config, part, shape)
    elif ".experts." in part:
        if ".experts.0." in part:
            yield f"{mixtures.PARTS[last]}_exps.weight", (mixtures.experts_of(config), *shape)
    elif stem == "self_attn.kv_b_proj" and config["naive"]:
        yield "attn_kv_b.weight", shape
    elif stem == "self_attn.kv_b_proj":
        heads, rank = config["num_attention_heads"], config["kv_lora_rank"]
        yield "attn_k_b.weight", (heads, rank, config["qk_nope_head_dim"])
        yield "attn_v_b.weight", (heads, config["v_head_dim"], rank)
    elif ".shared_expert" in part:
        yield f"{mixtures.PARTS[last]}_shexp.{kind}", shape
    else:
        yield f"{mixtures.PARTS.get(stem) or mixtures.PARTS[last]}.{kind}", shape


def _stacks(config: dict[str, Any], part: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    kind = "bias" if part.endswith("_bias") else "weight"
    if kind == "weight" and config["model_type"] != "mistral4":
        shape = (shape[0], shape[2], shape[1])
    if "down_proj" in part:
        yield f"ffn_down_exps.{kind}", shape
        return
    for name in ("gate", "up"):
        yield f"ffn_{name}_exps.{kind}", (shape[0], shape[1] // 2, *shape[2:])


def _gguf_kind(config: dict[str, Any], name: str, shape: tuple[int, ...]) -> str:
    if len(shape) == 1 or name.endswith((".bias", "ffn_gate_inp.weight")):
        return "F32"
    if config["model_type"] == "gpt_oss" and "_exps" in name:
        return "MXFP4"
    return "Q8_0" if shape[-1] % 256 or name in ("token_embd.weight", "output.weight") else "Q4_K"


def gguf_keys(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """All metadata but the vocabulary."""
    architecture = (
        "deepseek2"
        if name in ("mistral-large-3", "kimi-k2")
        else mixtures.ARCHITECTURES.get(config["model_type"], config["model_type"])
    )
    keys = metadata(config) | mixtures.metadata(config, config["naive"])
    if config["model_type"] == "kimi_k2":
        keys["expert_gating_func"] = 2
    if name == "mistral-large-3":
        keys |= {"attention.temperature_scale": 0.1, "attention.temperature_length": 8192}
    floats = ("rope.freq_base", "rope.scaling.factor", "expert_weights_scale")  # llama.cpp takes no integers for them
    return {"general.architecture": architecture, "general.name": name, "general.quantization_version": 2} | {
        f"{architecture}.{key}": float(value) if key in floats else value for key, value in keys.items()
    }


def _write_gguf(name: str, config: dict[str, Any], folder: Path) -> Path:
    shapes = gguf_shapes(config)
    given = {key: value.tobytes() for key, value in rope_tensors(config).items()}
    shapes |= {key: (len(value) // 4,) for key, value in given.items()}
    parts: list[list[tuple[str, tuple[int, ...], str]]] = [[]]
    size = 0
    for tensor, shape in shapes.items():
        kind = _gguf_kind(config, tensor, shape)
        if size and size + _nbytes(shape, kind) > _SHARD:
            parts.append([])
            size = 0
        parts[-1].append((tensor, shape, kind))
        size += _nbytes(shape, kind)
    keys = gguf_keys(name, config)
    paths = [
        folder / (f"{name}-{at + 1:05}-of-{len(parts):05}.gguf" if len(parts) > 1 else f"{name}.gguf") for at in range(len(parts))
    ]
    for at, (path, part) in enumerate(zip(paths, parts, strict=True)):
        split = {"split.no": at, "split.count": len(parts), "split.tensors.count": len(shapes)} if len(parts) > 1 else {}
        body = _strings_and_numbers((keys if at == 0 else {}) | split) + (_vocabulary(config["vocab_size"]) if at == 0 else b"")
        count = len((keys if at == 0 else {}) | split) + (_VOCABULARY_KEYS if at == 0 else 0)
        _write_part(path, part, count, body, given)
    return paths[0]


def _write_part(path: Path, part: list[tuple[str, tuple[int, ...], str]], count: int, keys: bytes, given: dict[str, bytes]) -> None:
    """One file: its header, and of its weights what is no hole."""
    infos, places, offset = [b"GGUF", struct.pack("<IQQ", 3, len(part), count), keys], [], 0
    for name, shape, kind in part:
        infos += [_text(name), struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], _IDS[kind], offset)]
        places.append((offset, given.get(name) or _content(name, shape, kind)))
        offset += -(-_nbytes(shape, kind) // 32) * 32
    header = b"".join(infos)
    start = -(-len(header) // 32) * 32
    with path.open("wb") as file:
        file.write(header)
        for at, content in places:
            if content is not None:
                file.seek(start + at)
                file.write(content)
        file.truncate(start + offset)


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _strings_and_numbers(keys: dict[str, Any]) -> bytes:
    forms: dict[type | str, tuple[int, str]] = {
        bool: (7, "<?"), int: (4, "<I"), float: (6, "<f"), "split.no": (2, "<H"), "split.count": (2, "<H"),
        "split.tensors.count": (5, "<i"),
    }  # fmt: skip
    found = []
    for key, value in keys.items():
        if isinstance(value, str):
            found += [_text(key), struct.pack("<I", 8), _text(value)]
        elif value is not None:
            number, form = forms.get(key) or forms[type(value)]
            found += [_text(key), struct.pack("<I", number), struct.pack(form, value)]
        else:
            raise ValueError(key)
    return b"".join(found)


_VOCABULARY_KEYS = 7


def _vocabulary(size: int) -> bytes:
    """A byte-level vocabulary of `size` tokens, each made of a shorter one and a letter, with the merges that say so."""
    letters = tokens.byte_letters()
    pieces, merges = list(letters), []
    for left in pieces:
        if len(pieces) >= size - 1:
            break
        for letter in letters[: size - 1 - len(pieces)]:
            merges.append(f"{left} {letter}")
            pieces.append(left + letter)
    pieces.append("<end>")
    types = np.ones(size, np.int32)
    types[-1] = 3
    lists = (("tokens", pieces), ("merges", merges))
    body = b"".join(
        _text(f"tokenizer.ggml.{name}") + struct.pack("<IIQ", 9, 8, len(items)) + b"".join(map(_text, items))
        for name, items in lists
    )
    body += _text("tokenizer.ggml.token_type") + struct.pack("<IIQ", 9, 5, size) + types.tobytes()
    keys = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.bos_token_id": size - 1,
            "tokenizer.ggml.eos_token_id": size - 1}  # fmt: skip
    return body + _strings_and_numbers(keys)


# ---- Hugging Face ----


def huggingface_tensors(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """Name, shape and type of all weights, as the makers publish them, layers for multi-token prediction included."""
    fp8 = (config.get("quantization_config") or {}).get("quant_method") == "fp8"
    llama4 = config["model_type"] == "llama4_text"
    layers, extra = config["num_hidden_layers"], config.get("num_nextn_predict_layers") or 0
    for name, shape in mixtures.shapes_of(config | {"num_hidden_layers": layers + extra}).items():
        if config["model_type"] == "gpt_oss" and name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            experts, columns, rows = shape
            yield f"{name}_blocks", (experts, rows, columns // 32, 16), "U8"
            yield f"{name}_scales", (experts, rows, columns // 32), "U8"
            continue
        kept = len(shape) == 1 or any(part in name for part in ("embed", "lm_head", "mlp.gate.weight"))
        yield f"language_model.{name}" if llama4 else name, shape, "F8_E4M3" if fp8 and not kept else "BF16"
        if fp8 and not kept:
            yield f"{name}_scale_inv", tuple(-(-size // 128) for size in shape), "F32"
    d, vocab = config["hidden_size"], config["vocab_size"]
    for layer in range(layers, layers + extra):
        parts = {"enorm": (d,), "hnorm": (d,), "eh_proj": (d, 2 * d), "shared_head.norm": (d,), "shared_head.head": (vocab, d),
                 "embed_tokens": (vocab, d)}  # fmt: skip
        for part, shape in parts.items():
            yield f"model.layers.{layer}.{part}.weight", shape, "BF16"
    if llama4:
        yield "multi_modal_projector.linear_1.weight", (d, 4096), "BF16"
        for layer in range(34):
            yield f"vision_model.model.layers.{layer}.self_attn.q_proj.weight", (1408, 1408), "BF16"


def _write_huggingface(config: dict[str, Any], folder: Path) -> Path:
    folder.mkdir()
    shards: list[list[tuple[str, tuple[int, ...], str]]] = [[]]
    size = 0
    for tensor in huggingface_tensors(config):
        nbytes = _nbytes(*tensor[1:])
        if size and size + nbytes > _SHARD_HF:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += nbytes
    places = {}
    for at, shard in enumerate(shards):
        file = f"model-{at + 1:05}-of-{len(shards):06}.safetensors"
        _write_shard(folder / file, shard)
        places |= dict.fromkeys((name for name, _, _ in shard), file)
    if config["model_type"] == "llama4_text":
        config = {"model_type": "llama4", "architectures": ["Llama4ForConditionalGeneration"], "text_config": config,
                  "vision_config": {"model_type": "llama4_vision_model"}}  # fmt: skip
    vocab = config.get("text_config", config)["vocab_size"]
    files = {"config.json": config, "model.safetensors.index.json": {"metadata": {"total_size": 0}, "weight_map": places},
             "tokenizer.json": tokens.tokenizer_json(vocab), "tokenizer_config.json": tokens.tokenizer_config()}  # fmt: skip
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def _write_shard(path: Path, shard: list[tuple[str, tuple[int, ...], str]]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset, contents = 0, []
    for name, shape, kind in shard:
        content = _content(name, shape, kind)
        if content is not None:
            contents.append((offset, content))
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [offset, offset + _nbytes(shape, kind)]}
        offset += _nbytes(shape, kind)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for at, content in contents:
            file.seek(8 + len(text) + at)
            file.write(content)
        file.truncate(8 + len(text) + offset)
