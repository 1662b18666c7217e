"""Granite 4 (H models): Mamba-2 in most layers and attention in some, each with a feed-forward or experts behind it.

References: transformers granitemoehybrid; llama.cpp for what a GGUF file says.
"""

from dataclasses import replace
from functools import partial

from lacewing.models.architecture import Architecture
from lacewing.models.architectures import granite, granitemoe
from lacewing.models.blocks.attention import attention
from lacewing.models.blocks.decoder import residual_block
from lacewing.models.blocks.feed_forward import feed_forward, mixture_of_experts
from lacewing.models.blocks.mamba import mamba
from lacewing.models.builder import Block, Builder
from lacewing.models.config import ModelConfig
from lacewing.models.names import STANDARD_NAMES
from lacewing.models.readers.mamba import by_layer, gguf_mamba, heads_of, huggingface_mamba, with_biases
from lacewing.models.readers.metadata import MetadataReader
from lacewing.program.ops import Buffer, GatedActivation

NAMES = {
    "mamba.in_proj": "ssm_in",
    "mamba.conv1d": "ssm_conv1d",
    "mamba.dt_bias": "ssm_dt.bias",
    "mamba.A_log": "ssm_a.weight",
    "mamba.D": "ssm_d.weight",
    "mamba.norm": "ssm_norm",
    "mamba.out_proj": "ssm_out",
}
GGUF_NAMES = {"blk.*.ssm_a": "blk.*.ssm_a.weight", "blk.*.ssm_d": "blk.*.ssm_d.weight"}
KINDS = {"mamba": "mamba", "linear_attention": "mamba", "attention": "attention", "full_attention": "attention"}


def block(config: ModelConfig, layer: int) -> Block:
    mixed = config.mamba is not None and config.mamba.kinds[layer] == "mamba"
    mixer: Block = partial(mamba, config.mamba) if config.mamba is not None and mixed else attention
    if config.mixture is not None:
        return residual_block(mixer, partial(mixture_of_experts, config.mixture))
    return residual_block(mixer, shared_feed_forward if config.fused_gate_up else feed_forward)


def shared_feed_forward(b: Builder, layer: int) -> None:
    """The feed-forward of a dense model, whose weights bear the names of shared experts in Hugging Face folders."""
    width = b.config.feed_forward
    both = Buffer("gate_up", 2 * width)
    gate, up = both.view(0, width), both.view(width, width)
    b.linear(b.normed, layer, ("ffn_up_shexp", both.view()))
    b.ops.append(GatedActivation(gate, up, gate, b.config.activation))
    b.linear(gate, layer, ("ffn_down_shexp", b.branch))


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    kinds = ["linear_attention"] * config.layers
    for name in ("layers_block_type", "layer_types"):  # the newer name counts, if both are there
        if keys.get(name) is not None:
            kinds = keys.words(name, config.layers, KINDS)
    heads, width = heads_of(keys, config.width * keys.integer("mamba_expand", high=64))
    rotated = keys.choice("position_embedding_type", {"rope": "rope", "nope": "none"}, "nope") == "rope"
    keys.get("num_experts_per_tok")  # which dense models may have as well
    shared = keys.integer("shared_intermediate_size")
    chosen, names = tuple(KINDS[kind] for kind in kinds), ("mamba_d_state", "mamba_n_groups", "mamba_d_conv")
    config = replace(
        huggingface_mamba(keys, config, chosen, heads, width, names),
        fused_gate_up=True,
        feed_forward=shared if config.mixture is None else config.feed_forward,
        nope_layers=frozenset() if rotated else frozenset(range(config.layers)),
    )
    config = with_biases(config, keys.flag("mamba_conv_bias"), keys.flag("mamba_proj_bias"))
    return granitemoe.huggingface(keys, config)


def gguf(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """Layers of 0 key heads have Mamba-2."""
    kinds = tuple("attention" if count else "mamba" for count in by_layer(keys, "attention.head_count_kv", config.layers))
    return granite.gguf(keys, replace(config, mamba=gguf_mamba(keys, kinds)))


ARCHITECTURE = Architecture(
    name="granitehybrid",
    models="Granite 4.0 and 4.1 H",
    also=("granitemoehybrid",),
    names=STANDARD_NAMES | granitemoe.NAMES | NAMES,
    gguf_names=GGUF_NAMES,
    mixture={"renormalise": True},
    gguf_switches={"adjacent_rope": True},
    hybrid=True,
    block=block,
    defaults={
        "granitemoehybrid": granite.DEFAULTS
        | {
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "shared_intermediate_size": 1024,
            "mamba_n_heads": 128,
            "mamba_n_groups": 1,
            "mamba_d_state": 256,
            "mamba_d_conv": 4,
            "mamba_expand": 2,
            "mamba_conv_bias": True,
            "layer_kinds": ("mamba", "attention", "linear_attention"),
        }
    },
    huggingface=huggingface,
    gguf=gguf,
)
