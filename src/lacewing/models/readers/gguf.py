"""A GGUF file's metadata to a ModelConfig. References: the key tables of GGUF and llama.cpp's loaders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from lacewing.errors import WeightError
from lacewing.formats.checkpoint import Checkpoint, TensorInfo
from lacewing.models.architecture import Architecture
from lacewing.models.config import AltUpConfig, HeadSizes, LatentConfig, ModelConfig, PerLayerConfig
from lacewing.models.readers.heads import gguf_heads, keys_are_values
from lacewing.models.readers.metadata import MetadataReader
from lacewing.models.readers.mixture import gguf_mixture
from lacewing.models.readers.numbers import numbers_of
from lacewing.models.rope import RopeConfig, yarn_magnitude
from lacewing.options import counted

ROPE_TENSORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
# Keys that say nothing of the maths of text: of training, of embedding models, of how images come in.
_HARMLESS = ("rope.scaling.finetuned", "tensor_data_layout", "pooling_type", "decoder_start_token_id", "decoder_block_count",
             "classifier.output_labels", "features_length", "embedding_length_out", "dense_2_feat_in", "dense_2_feat_out",
             "dense_3_feat_in", "dense_3_feat_out", "attention.layer_norm_epsilon", "attention.group_norm_epsilon",
             "attention.group_norm_groups", "rope.dimension_sections", "rope.mrope_section", "n_deepstack_layers",
             "image_token_index", "spatial_merge_size", "mm_tokens_per_image", "rope.scaling.mscale")  # fmt: skip
_INERT: dict[str, tuple[Any, ...]] = dict.fromkeys(
    ("logit_scale", "residual_scale", "embedding_scale", "attention.output_scale"), (1,)
)
# Names that Ollama has, or had, for keys of llama.cpp. Reference: Ollama's convert/ and llama/compat/.
SYNONYMS = {
    "rope.global.freq_base": "rope.freq_base",
    "rope.local.freq_base": "rope.freq_base_swa",
    "rope.scaling.beta_fast": "rope.scaling.yarn_beta_fast",
    "rope.scaling.beta_slow": "rope.scaling.yarn_beta_slow",
    "rope.scaling.extrapolation_factor": "rope.scaling.yarn_ext_factor",
    "rope.scaling.mscale_all_dim": "rope.scaling.yarn_log_multiplier",
    "rope.scaling_beta": "attention.temperature_scale",
    "attention.head_dim": "attention.key_length",
    "attention.chunk_size": "attention.sliding_window",
    "norm_top_k_prob": "expert_weights_norm",
}
_OTHER_PARTS = ("vision.", "audio.", "mm.")  # in files that hold more than the language model, as Ollama makes them
_OF_MIXTURES = ("expert_", "leading_dense_block_count", "interleave_moe_layer_step")  # say nothing of a dense model
_OF_YARN = ("rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow", "rope.scaling.yarn_log_multiplier")
_SECTIONS = ("general", "tokenizer", "split", "quantize", "xielu")  # of keys that are no architecture's
_SURPLUS = 256  # tokens without a row that a tokenizer may have: marks of images in files of Ollama
_LINEARS = ("attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output", "ffn_gate", "ffn_up", "ffn_down",
            "ssm_in", "ssm_conv1d", "ssm_out")  # fmt: skip


def read_gguf(checkpoint: Checkpoint, architecture: Architecture) -> tuple[ModelConfig, list[str]]:
    """The config, and notices.

    Raises UnsupportedModelError for a key out of bounds or unknown, WeightError for a missing embedding.
    """
    name, tensors = architecture.name, checkpoint.tensors
    keys = MetadataReader(_usual_keys(checkpoint.metadata, name), checkpoint.path.name, architecture.gguf_defaults, f"{name}.")
    keys.read |= {f"{name}.{synonym}" for synonym in SYNONYMS}
    keys.weights, keys.whole = tensors, checkpoint.whole
    _refuse_unsupported(keys, tensors, architecture)
    predicting = keys.integer("nextn_predict_layers", 0, low=0, high=64)
    layers = keys.integer("block_count", low=predicting + 1, high=1024) - predicting
    width = keys.integer("embedding_length")
    latent = _latent(keys, tensors) if architecture.latent else None
    trained = keys.integer("context_length", high=2**31)
    windows = _windows(keys, layers)
    heads, local_heads = _head_sizes(keys, architecture, latent, windows, predicting)
    rope, local_rope = _ropes(keys, tensors, (heads.width, (local_heads or heads).width), trained, checkpoint.whole)
    feed_forwards = _feed_forwards(keys, tensors, architecture, layers)
    config = ModelConfig(
        architecture=name,
        layers=layers,
        width=width,
        heads=heads.heads,
        key_heads=heads.key_heads if latent is None else 1,
        head_width=heads.width,
        feed_forward=feed_forwards[0],
        feed_forwards=feed_forwards if len(set(feed_forwards)) > 1 else (),
        local_heads=local_heads,
        keys_are_values=architecture.local_heads and keys_are_values(tensors, windows),
        per_layer=_per_layer(keys, tensors) if architecture.per_layer else None,
        altup=_altup(tensors),
        vocab_size=_vocab_size(keys, checkpoint),
        trained_context=trained,
        eps=_eps(keys, architecture),
        rope=rope,
        local_rope=local_rope,
        windows=windows,
        attention_scale=keys.number("attention.scale", 0, low=0, high=1e6) or heads.width**-0.5,
        fused_qkv="blk.0.attn_qkv.weight" in tensors,
        fused_gate_up="blk.0.ffn_up.weight" in tensors and "blk.0.ffn_gate.weight" not in tensors,
        tied_output="output.weight" not in tensors,
        biases=architecture.biases | {linear for linear in _LINEARS if _is_there(f"blk.*.{linear}.bias", tensors)},
        latent=latent,
        mixture=None if architecture.mixture is None else gguf_mixture(keys, tensors, layers, architecture.mixture),
        predicting_layers=predicting,
    )
    present: dict[str, Any] = {field: _is_there(weight, tensors) for field, weight in architecture.gguf_presence.items()}
    if config.mixture is not None:
        found: dict[str, Any] = {field: weight in tensors for field, weight in architecture.mixture_presence.items()}
        present["mixture"] = replace(config.mixture, **found)
    config = architecture.gguf(keys, replace(config, **{**architecture.switches, **architecture.gguf_switches, **present}))
    others = _OTHER_PARTS if config.mixture is not None else (*_OTHER_PARTS, *_OF_MIXTURES)
    keys.refuse_unknown(keys.unread((*_HARMLESS, *(key for key in keys.names() if key.startswith(others)))), _INERT)
    keys.tell_of(key for key in checkpoint.metadata if key.partition(".")[0] not in (name, *_SECTIONS))
    return config, keys.notices


def _is_there(weight: str, tensors: Mapping[str, TensorInfo]) -> bool:
    """Whether a weight is, or in a name with * one of any layer."""
    start, _, end = weight.partition("*")
    return weight in tensors or ("*" in weight and any(name.startswith(start) and name.endswith(end) for name in tensors))


def _usual_keys(metadata: Mapping[str, Any], name: str) -> dict[str, Any]:
    """With every synonym under the usual name as well, unless there is one."""
    found = {f"{name}.{usual}": metadata.get(f"{name}.{synonym}") for synonym, usual in SYNONYMS.items()}
    return {key: value for key, value in found.items() if value is not None} | dict(metadata)


def _feed_forwards(
    keys: MetadataReader, tensors: Mapping[str, TensorInfo], architecture: Architecture, layers: int
) -> tuple[int, ...]:
    """Of each layer. One number for all must be that of the first, if that is a plain one: it is stale in files of Ollama for
    LFM2."""
    if architecture.attention_free:
        return (0,) * layers
    gate, named = tensors.get("blk.0.ffn_gate.weight"), keys.get("feed_forward_length")
    if gate is None or len(gate.shape) != 2 or type(named) is not int or named == gate.shape[0]:
        if architecture.per_layer:
            return keys.integers("feed_forward_length", layers)
        return (keys.integer("feed_forward_length", ignoring=0 if architecture.hybrid else None),) * layers
    keys.notices.append(f"{keys.prefix}feed_forward_length is {named}, but the weights have {gate.shape[0]}, which holds")
    return (gate.shape[0],) * layers


def _per_layer(keys: MetadataReader, tensors: Mapping[str, TensorInfo]) -> PerLayerConfig | None:
    width, table = keys.integer("embedding_length_per_layer_input", 0, low=0), tensors.get("per_layer_token_embd.weight")
    if not width:
        return None
    if table is None or len(table.shape) != 2:
        raise WeightError(f"{keys.where}: per_layer_token_embd.weight is missing or not a matrix")
    return PerLayerConfig(width, table.shape[0])


def _altup(tensors: Mapping[str, TensorInfo]) -> AltUpConfig | None:
    """The rank of the learned residual layer is only in the weights; the keys say the rest."""
    left = tensors.get("blk.0.laurel_l.weight")
    return None if left is None else AltUpConfig(2, 0, rank=left.shape[0])


def _eps(keys: MetadataReader, architecture: Architecture) -> float:
    """LayerNorm has a key of its own, which phimoe does not use."""
    usual = "attention.layer_norm_rms_epsilon"
    if architecture.switches.get("layer_norm") and "attention.layer_norm_epsilon" in keys:
        keys.get(usual)
        return keys.number("attention.layer_norm_epsilon", low=1e-20, high=1)
    return keys.number(usual, low=1e-20, high=1)


def _latent(keys: MetadataReader, tensors: Mapping[str, TensorInfo]) -> LatentConfig:
    """Newer files have attn_k_b and attn_v_b and the lengths of heads with _mla; older ones attn_kv_b and plain lengths."""
    rope = keys.integer("rope.dimension_count", high=2**12)
    q_rank, rank = keys.integer("attention.q_lora_rank", 0, low=0) or None, keys.integer("attention.kv_lora_rank")
    head, value = (keys.integer(f"attention.{part}_length", high=2**16) for part in ("key", "value"))
    of_heads, of_value = (keys.integer(f"attention.{part}_length_mla", 0, low=0, high=2**16) for part in ("key", "value"))
    if of_heads != rank + rope or head == of_heads:  # else the two are swapped, as in glm4moelite of Ollama
        head, value = of_heads or head, of_value or value
    if head <= rope:
        raise keys.error("attention.key_length", f"is {head}, no more than the {rope} values that are rotated")
    return LatentConfig(
        q_rank=q_rank,
        rank=rank,
        nope=head - rope,
        rope=rope,
        value=value,
        eps=keys.number("attention.layer_norm_rms_epsilon", low=1e-20, high=1),
        transposed_keys=any(name.endswith(".attn_kv_b.weight") for name in tensors),
    )


def _head_sizes(
    keys: MetadataReader, architecture: Architecture, latent: LatentConfig | None, windows: tuple[int | None, ...], predicting: int
) -> tuple[HeadSizes, HeadSizes | None]:
    """Of layers that see everything, and of those with a window, where they differ."""
    if architecture.local_heads:
        return gguf_heads(keys, windows, predicting)
    heads = key_heads = 1
    if not architecture.attention_free:
        heads = _heads(keys)
        key_heads = keys.integer("attention.head_count_kv", heads, ignoring=0 if architecture.hybrid else None)
    width = latent.nope + latent.rope if latent else _head_width(keys, keys.integer("embedding_length") // heads)
    return HeadSizes(heads, key_heads, width), None


def _head_width(keys: MetadataReader, default: int) -> int:
    head_width = keys.integer("attention.key_length", default, high=2**16)
    for other in ("value_length", "key_length_swa", "value_length_swa"):
        if keys.integer(f"attention.{other}", head_width) != head_width:
            raise keys.error(f"attention.{other}", f"differs from the width of keys, {head_width}")
    return head_width


def _refuse_unsupported(keys: MetadataReader, tensors: Mapping[str, TensorInfo], architecture: Architecture) -> None:
    mixture = keys.integer("expert_count", 0, low=0) > 0
    if mixture and architecture.mixture is None:
        raise keys.error("expert_count", "asks for a mixture of experts, which this version does not know for this architecture")
    if not mixture and any(".ffn_gate_inp." in tensor for tensor in tensors):
        raise keys.error("expert_count", "is missing, but there are weights of a router")
    if not mixture and not architecture.hybrid and keys.integer("nextn_predict_layers", 0, low=0) > 0:
        raise keys.error("nextn_predict_layers", "asks for multi-token prediction layers, which this version does not know")
    if not keys.flag("attention.causal", True):
        raise keys.error("attention.causal", "is false; this version runs causal models only")


def _heads(keys: MetadataReader) -> int:
    heads, width = keys.integer("attention.head_count", high=2**16), keys.integer("embedding_length")
    if width // heads < 1 or ("attention.key_length" not in keys and width % heads):
        raise keys.error("attention.head_count", f"is {heads}, which does not divide the width {width}")
    return heads


def _vocab_size(keys: MetadataReader, checkpoint: Checkpoint) -> int:
    """Rows of the embedding, each of which must have a token where there is a tokenizer; the key may be stale."""
    embedding = checkpoint.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise WeightError(f"{checkpoint.path.name}: token_embd.weight is missing or not a matrix")
    rows = embedding.shape[0]
    named = keys.integer("vocab_size", rows)
    tokens = checkpoint.metadata.get("tokenizer.ggml.tokens")
    count = len(tokens) if isinstance(tokens, list | np.ndarray) else rows  # anything else is the tokenizer's to refuse
    if not rows <= count <= rows + _SURPLUS:
        raise WeightError(
            f"{checkpoint.path.name}: token_embd.weight has {rows} rows but there are {count} tokens in the tokenizer"
        )
    if named != rows:
        keys.notices.append(f"{keys.prefix}vocab_size is {named}, but the embedding has {rows} rows, which hold")
    if count > rows:
        keys.notices.append(
            f"{counted(count - rows, 'token')} of the tokenizer ({rows} and up) cannot be used: the embedding has no row"
        )
    return rows


def _windows(keys: MetadataReader, layers: int) -> tuple[int | None, ...]:
    """Pattern n: every n-th layer sees everything; flags: true means windowed; no pattern: all layers are windowed."""
    window = keys.integer("attention.sliding_window", 0, low=0, high=2**31) or None
    pattern = keys.get("attention.sliding_window_pattern", 0)
    if isinstance(pattern, list | tuple):
        return tuple(window if local else None for local in keys.flags("attention.sliding_window_pattern", layers))
    every = keys.integer("attention.sliding_window_pattern", 0, low=0)
    return tuple(None if every and (layer + 1) % every == 0 else window for layer in range(layers))


def _ropes(
    keys: MetadataReader, tensors: Mapping[str, TensorInfo], head_widths: tuple[int, int], trained: int, whole: bool
) -> tuple[RopeConfig, RopeConfig]:
    """The rotation of layers that see everything and of windowed layers, which may have a base and heads of their own."""
    width, base = keys.integer("rope.dimension_count", head_widths[0]), keys.number("rope.freq_base", 10000, low=1e-6, high=1e18)
    kinds = {"none": "none", "linear": "linear", "yarn": "yarn", "longrope": "longrope"}
    kinds |= dict.fromkeys(("", "default", "mrope"), "none")  # the positions of text are equal in all sections of mrope
    kind = keys.choice("rope.scaling.type", kinds, "linear")
    factor = keys.number("rope.scaling.factor", keys.number("rope.scale_linear", 0, low=0, high=1e9), low=0, high=1e9) or 1.0
    if factor < 1e-3:
        raise keys.error("rope.scaling.factor", f"is {factor:g}; it must be 0, which means none, or a number from 0.001")
    original = keys.integer("rope.scaling.original_context_length", trained, high=2**31)
    magnitude = keys.optional_number("rope.scaling.attn_factor", low=1e-6, high=1e6)
    divisors, long, short = (_values(tensors, name, whole) for name in ROPE_TENSORS)
    if bool(long) != bool(short):
        raise WeightError(f"{keys.where}: only one of {ROPE_TENSORS[1]} and {ROPE_TENSORS[2]} is there; longrope needs both")
    rope = RopeConfig(width, base, kind, factor, original, divisors=divisors)
    if long:
        rope = replace(rope, kind="longrope", factor=trained / original, magnitude=magnitude)
        rope = replace(rope, long_divisors=long, short_divisors=short)
    elif kind == "longrope":
        raise WeightError(f"{keys.where}: longrope needs {ROPE_TENSORS[1]} and {ROPE_TENSORS[2]}")
    elif kind == "yarn":
        rope = _yarn(keys, rope, magnitude or 1.0)
    else:
        rope = replace(rope, magnitude=magnitude)
        if kind == "none" or factor == 1:
            keys.read |= {keys.prefix + name for name in _OF_YARN}  # without a meaning
    local_base = keys.optional_number("rope.freq_base_swa", low=1e-6, high=1e18)
    local_width = keys.integer("rope.dimension_count_swa", width if head_widths[0] == head_widths[1] else head_widths[1])
    if local_base is None and local_width == width:
        return rope, rope
    return rope, RopeConfig(local_width, local_base or base)


def _yarn(keys: MetadataReader, rope: RopeConfig, magnitude: float) -> RopeConfig:
    if keys.number("rope.scaling.yarn_ext_factor", 1) != 1:
        raise keys.error("rope.scaling.yarn_ext_factor", "is not 1, which this version does not know")
    scale = keys.number("rope.scaling.yarn_log_multiplier", 0, low=0, high=1e3)
    usual = yarn_magnitude(rope.factor) / (yarn_magnitude(rope.factor, scale) if scale else 1)
    magnitude *= keys.number("rope.scaling.yarn_attn_factor", usual, low=1e-6, high=1e6)  # of the whole, as converters copy it
    fast = keys.number("rope.scaling.yarn_beta_fast", 32, low=1e-3, high=1e6)
    slow = keys.number("rope.scaling.yarn_beta_slow", 1, low=1e-3, high=1e6)
    return replace(rope, magnitude=magnitude, beta_fast=fast, beta_slow=slow, log_multiplier=scale)


def _values(tensors: Mapping[str, TensorInfo], name: str, whole: bool) -> tuple[float, ...]:
    """The numbers of a small tensor that belongs into the program; () where absent; ones where only headers are here."""
    info = tensors.get(name)
    if info is None:
        return ()
    values = numbers_of(info, whole)
    if any(not 0 < value < 1e38 for value in values):
        raise WeightError(f"{name} holds values that are not positive numbers")
    return values
