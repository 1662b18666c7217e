"""Mamba-2 (and Codestral Mamba): layers of nothing else. References: transformers mamba2; llama.cpp for what a GGUF file says."""

from dataclasses import replace
from functools import partial

from lacewing.models.architecture import Architecture
from lacewing.models.architectures import nemotron_h
from lacewing.models.architectures.granitehybrid import GGUF_NAMES
from lacewing.models.blocks.decoder import single_block
from lacewing.models.blocks.mamba import mamba
from lacewing.models.builder import Block
from lacewing.models.config import MambaConfig, ModelConfig
from lacewing.models.readers.mamba import gguf_mamba, skip_unused, time_limits
from lacewing.models.readers.metadata import MetadataReader


def block(config: ModelConfig, layer: int) -> Block:
    if config.mamba is None:
        raise TypeError("a config of Mamba-2 without its sizes")
    return single_block(partial(mamba, config.mamba))


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    skip_unused(keys)
    bias, projections = keys.flag("use_conv_bias", True), keys.flag("use_bias")
    return replace(
        config,
        eps=keys.number("layer_norm_epsilon", 1e-5, low=1e-20, high=1),
        feed_forward=0,
        mamba=MambaConfig(
            kinds=("mamba",) * config.layers,
            heads=keys.integer("num_heads", high=2**16),
            head_width=keys.integer("head_dim", high=2**16),
            states=keys.integer("state_size", high=2**11),
            groups=keys.integer("n_groups", high=2**16),
            kernel=keys.integer("conv_kernel", low=2, high=64),
            limits=time_limits(keys),
            log_decay=True,
        ),
        biases=config.biases | ({"ssm_conv1d"} if bias else set()) | ({"ssm_in", "ssm_out"} if projections else set()),
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
