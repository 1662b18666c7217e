"""Mamba-2 (and Codestral Mamba): layers of nothing else. References: transformers mamba2; llama.cpp for what a GGUF file says."""

from dataclasses import replace
from functools import partial

from lacewing.models.architecture import Architecture
from lacewing.models.architectures import nemotron_h
from lacewing.models.architectures.granitehybrid import GGUF_NAMES
from lacewing.models.blocks.decoder import single_block
from lacewing.models.blocks.mamba import mamba
from lacewing.models.builder import Block
from lacewing.models.config import ModelConfig
from lacewing.models.readers.mamba import gguf_mamba, huggingface_mamba, with_biases
from lacewing.models.readers.metadata import MetadataReader


def block(config: ModelConfig, layer: int) -> Block:
    if config.mamba is None:
        raise TypeError("a config of Mamba-2 without its sizes")
    return single_block(partial(mamba, config.mamba))


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    heads, width = keys.integer("num_heads", high=2**16), keys.integer("head_dim", high=2**16)
    kinds, names = ("mamba",) * config.layers, ("state_size", "n_groups", "conv_kernel")
    config = with_biases(config, keys.flag("use_conv_bias", True), keys.flag("use_bias"))
    return replace(
        huggingface_mamba(keys, config, kinds, heads, width, names),
        eps=keys.number("layer_norm_epsilon", 1e-5, low=1e-20, high=1),
        feed_forward=0,
    )


def gguf(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    return replace(config, mamba=gguf_mamba(keys, ("mamba",) * config.layers))


ARCHITECTURE = Architecture(
    name="mamba2",
    models="Mamba-2, Codestral Mamba",
    names={name: ours for name, ours in nemotron_h.NAMES.items() if not ours.startswith(("attn_q", "attn_k", "ffn", "exp"))},
    gguf_names=GGUF_NAMES,
    attention_free=True,
    block=block,
    defaults={
        "mamba2": {
            "vocab_size": 32768,
            "hidden_size": 4096,
            "num_hidden_layers": 64,
            "max_position_embeddings": 2**20,
            "rms_norm_eps": 1e-5,
            "hidden_act": "silu",
            "num_heads": 128,
            "head_dim": 64,
            "state_size": 128,
            "n_groups": 8,
            "conv_kernel": 4,
            "num_attention_heads": 1,
            "intermediate_size": 1,
            "layer_kinds": ("linear_attention",),
        }
    },
    huggingface=huggingface,
    gguf=gguf,
)
