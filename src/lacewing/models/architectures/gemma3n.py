"""Gemma 3n: alternating updates of four residual streams, a learned residual layer, embeddings for each layer, shared keys and
values, sparse activations. Reference: transformers gemma3n; llama.cpp for what a GGUF file says.
"""

from dataclasses import replace
from math import isfinite
from statistics import NormalDist
from typing import Any

from lacewing.models.architecture import Architecture
from lacewing.models.architectures import gemma
from lacewing.models.blocks.feed_forward import feed_forward
from lacewing.models.blocks.per_layer import per_layer_branch, per_layer_inputs
from lacewing.models.blocks.shared_kv import shared_attention
from lacewing.models.blocks.streams import begin_streams, correct, end_streams, predict
from lacewing.models.builder import Block, Builder
from lacewing.models.config import AltUpConfig, ModelConfig, PerLayerConfig
from lacewing.models.names import PER_LAYER_NAMES, POST_NORM_NAMES, QK_NORM_NAMES, STANDARD_NAMES
from lacewing.models.readers.metadata import MetadataReader
from lacewing.program.ops import Buffer
from lacewing.program.stream_ops import AddScale

MOST_STREAMS = 16
NAMES = {
    "laurel.linear_left": "laurel_l",
    "laurel.linear_right": "laurel_r",
    "laurel.post_laurel_norm": "laurel_post_norm",
    "altup.correction_coefs": "altup_correct_coef",
    "altup.prediction_coefs": "altup_predict_coef",
    "altup.modality_router": "altup_router",
    "altup.router_norm": "altup_router_norm",
    "altup.correct_output_scale": "altup_correct_scale.weight",
    **{f"altup_projections.{stream}": f"altup_proj.{stream}" for stream in range(MOST_STREAMS - 1)},
    **{f"altup_unembed_projections.{stream}": f"altup_unembd_proj.{stream}" for stream in range(MOST_STREAMS - 1)},
}
SPARSE_LAYERS, SPARSITY = 10, 0.95  # where config.json names none, of models of more layers
DEFAULTS: dict[str, Any] = gemma.DEFAULTS | {
    "max_position_embeddings": 32768,
    "vocab_size": 262400,
    "hidden_size": 2048,
    "intermediate_size": 16384,
    "num_hidden_layers": 35,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "sliding_window": 512,
    "sliding_window_pattern": 5,
    "rope_theta": 1e6,
    "rope_local_base_freq": 1e4,
    "final_logit_softcapping": 30.0,
    "vocab_size_per_layer_input": 262144,
    "hidden_size_per_layer_input": 256,
    "altup_active_idx": 0,
    "altup_correct_scale": True,
    "altup_num_inputs": 4,
    "num_kv_shared_layers": 15,
    "laurel_rank": 64,
}


def block(config: ModelConfig, layer: int) -> Block:
    return layer_block


def layer_block(b: Builder, layer: int) -> None:
    """A layer computes with the active stream, in x; the others follow by what it changed."""
    name, laurel = f"blk.{layer}", Buffer("laurel", b.config.width).view()
    active = predict(b, layer)
    b.norm(active, f"{name}.attn_norm", b.normed)
    shared_attention(b, layer)
    b.norm(b.branch, f"{name}.post_attention_norm", b.branch)
    residual_layer(b, layer)
    b.ops += [
        AddScale(active, b.branch, b.branch),
        AddScale(b.normed, laurel, laurel),
        AddScale(b.branch, laurel, b.x, factor=2**-0.5),
    ]
    b.norm(b.x, f"{name}.ffn_norm", b.normed)
    feed_forward(b, layer)
    b.norm(b.branch, f"{name}.post_ffw_norm", b.branch)
    b.ops.append(AddScale(b.x, b.branch, b.x))
    correct(b, layer, per_layer_branch)


def residual_layer(b: Builder, layer: int) -> None:
    """The learned augmented residual layer (LAuReL, arXiv 2411.07501) of normed (T, D): a product of low rank, normed."""
    altup = b.config.altup
    low, laurel = Buffer("laurel_low", altup.rank if altup else 0).view(), Buffer("laurel", b.config.width).view()
    b.linear(b.normed, layer, ("laurel_l", low))
    b.linear(low, layer, ("laurel_r", laurel))
    b.norm(laurel, f"blk.{layer}.laurel_post_norm", laurel)


def begin(b: Builder) -> None:
    per_layer_inputs(b)
    begin_streams(b)


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    keys.get("altup_coef_clip")  # in training only
    rows = keys.integer("vocab_size_per_layer_input", config.vocab_size)
    altup = AltUpConfig(
        keys.integer("altup_num_inputs", 4, high=MOST_STREAMS),
        keys.integer("altup_active_idx", 0, low=0, high=MOST_STREAMS),
        keys.flag("altup_correct_scale", True),
        keys.integer("laurel_rank", 64),
    )
    return replace(
        gemma.scaled(keys, config),
        altup=altup,
        per_layer=PerLayerConfig(keys.integer("hidden_size_per_layer_input", 256), rows),
        shared_kv=keys.integer("num_kv_shared_layers", 15, low=0, high=config.layers),
        cutoffs=tuple(map(_cutoff, _sparsities(keys, config.layers))),
        final_softcap=keys.optional_number("final_logit_softcapping", low=0, high=1e6) or None,
    )


def _sparsities(keys: MetadataReader, layers: int) -> list[float]:
    """The share of each layer's activations that are to be zero."""
    found = keys.get("activation_sparsity_pattern")
    if found is None:
        sparse = SPARSE_LAYERS if layers > SPARSE_LAYERS else 0
        return [SPARSITY] * sparse + [0.0] * (layers - sparse)
    sound = isinstance(found, list) and len(found) == layers
    if not sound or not all(isinstance(share, int | float) and not isinstance(share, bool) and 0 <= share < 1 for share in found):
        raise keys.error("activation_sparsity_pattern", f"must be {layers} numbers from 0 to 1, one a layer")
    return [float(share) for share in found]


def _cutoff(share: float) -> float | None:
    return NormalDist().inv_cdf(share) if share > 0 else None


def gguf(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """Older files do not say how many layers have a KV cache of their own: 20."""
    streams, active = keys.integer("altup.num_inputs", 4, high=MOST_STREAMS), keys.integer("altup.active_idx", 0, low=0)
    if config.per_layer is None:
        raise keys.error("embedding_length_per_layer_input", "is missing or 0; every model of this architecture has some")
    shared = keys.integer("attention.shared_kv_layers", max(0, config.layers - 20), low=0, high=config.layers)
    return replace(
        gemma.scaled(keys, config),
        altup=AltUpConfig(streams, active, rank=config.altup.rank if config.altup else 64),
        shared_kv=shared,
        cutoffs=_gguf_cutoffs(keys, config.layers),
        final_softcap=keys.optional_number("final_logit_softcapping", low=0, high=1e6) or None,
    )


def _gguf_cutoffs(keys: MetadataReader, layers: int) -> tuple[float | None, ...]:
    """Quantiles of the normal distribution; that of a dense layer is minus infinity."""
    found = keys.get("activation_sparsity_scale")
    if found is None:
        return tuple(map(_cutoff, [SPARSITY] * min(SPARSE_LAYERS, layers) + [0.0] * max(0, layers - SPARSE_LAYERS)))
    sound = isinstance(found, list) and len(found) == layers and all(type(each) is float and each < 1e3 for each in found)
    if not sound:
        raise keys.error("activation_sparsity_scale", f"must be {layers} numbers, one a layer")
    return tuple(each if isfinite(each) else None for each in found)


ARCHITECTURE = Architecture(
    name="gemma3n",
    models="Gemma 3n (E2B, E4B)",
    also=("gemma3n_text",),
    names=STANDARD_NAMES | POST_NORM_NAMES | QK_NORM_NAMES | PER_LAYER_NAMES | NAMES,
    switches={"post_norms": True, "qk_norm": True, "attention_scale": 1.0},
    gguf_switches={"activation": "gelu_tanh"},
    gguf_defaults={
        "rope.freq_base": 1e6,
        "rope.freq_base_swa": 1e4,
        "attention.sliding_window_pattern": 5,
        "final_logit_softcapping": 30.0,
    },
    per_layer=True,
    block=block,
    begin=begin,
    end=end_streams,
    defaults={"gemma3n_text": DEFAULTS, "gemma3n": DEFAULTS},
    huggingface=huggingface,
    gguf=gguf,
)
