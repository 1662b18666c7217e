"""Falcon-H1 of TII: attention and Mamba-2 read the same norm in every layer, with factors (muP) on what each part gives.

References: transformers falcon_h1; llama.cpp for GGUF files, whose converter multiplies the weights by the factors. Where the
embedding is the output as well (Falcon-H1-Tiny), such a file has the factor of the embedding on both and not that of the output.
"""

from dataclasses import replace

from lacewing.models.architecture import Architecture
from lacewing.models.architectures import granitehybrid
from lacewing.models.blocks.attention import attention
from lacewing.models.blocks.feed_forward import feed_forward
from lacewing.models.blocks.mamba import mamba
from lacewing.models.builder import Block, Builder
from lacewing.models.config import ModelConfig, MultipliersConfig
from lacewing.models.names import STANDARD_NAMES
from lacewing.models.readers.mamba import gguf_mamba, heads_of, huggingface_mamba
from lacewing.models.readers.metadata import MetadataReader
from lacewing.program.ops import Combine
from lacewing.program.stream_ops import AddScale

NAMES = {
    "final_layernorm": "output_norm",
    "pre_ff_layernorm": "ffn_norm",
    "feed_forward.gate_proj": "ffn_gate",
    "feed_forward.up_proj": "ffn_up",
    "feed_forward.down_proj": "ffn_down",
}
SIZES = ("mamba_d_state", "mamba_n_groups", "mamba_d_conv")


def block(config: ModelConfig, layer: int) -> Block:
    if config.mamba is None:
        raise TypeError("a config of Falcon-H1 without the sizes of Mamba-2")
    return layer_block


def layer_block(b: Builder, layer: int) -> None:
    """x (T, D) to x, and in branch what the next norm adds to it."""
    name, factors = f"blk.{layer}", b.config.multipliers
    b.norm(b.x, f"{name}.attn_norm", b.normed, add=b.branch if layer else None)
    if b.config.mamba is not None:
        mamba(b.config.mamba, b, layer)
    _multiply(b, factors.mamba)
    b.ops.append(Combine(b.branch, None, b.x, 1, b.x))
    attention(b, layer)
    _multiply(b, factors.attention)
    b.norm(b.x, f"{name}.ffn_norm", b.normed, add=b.branch)
    feed_forward(b, layer)
    _multiply(b, factors.feed_forward)


def _multiply(b: Builder, factor: float) -> None:
    if factor != 1:
        b.ops.append(AddScale(b.branch, None, b.branch, factor=factor))


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    whole = keys.integer("mamba_d_ssm", config.width * keys.integer("mamba_expand", high=64))
    heads, width = heads_of(keys, whole)
    if not keys.flag("mamba_use_mlp", True):
        raise keys.error("mamba_use_mlp", "is false, which this version does not know")
    flags = {"mamba_conv_bias": "ssm_conv1d", "mamba_proj_bias": "ssm_in", "projectors_bias": "ssm_out"}
    biases = {linear for name, linear in flags.items() if keys.flag(name)}
    config = huggingface_mamba(keys, config, ("both",) * config.layers, heads, width, SIZES)
    return _with_factors(keys, replace(config, biases=config.biases | biases))


def _with_factors(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """Factors that only meet linear layers without a bias are moved to where they cost nothing. Raises UnsupportedModelError."""
    embedding, head, key, attention_in, attention_out, mamba_in, mamba_out = (
        keys.number(f"{name}_multiplier", 1, low=1e-9, high=1e9)
        for name in ("embedding", "lm_head", "key", "attention_in", "attention_out", "ssm_in", "ssm_out")
    )
    for name, factor, linear in (("attention_in", attention_in, "attn_q"), ("ssm_in", mamba_in, "ssm_in")):
        if factor != 1 and linear in config.biases:
            raise keys.error(f"{name}_multiplier", "is not 1 before linear layers with a bias, which this version does not know")
    if config.mamba is None:
        raise TypeError("a config of Falcon-H1 without the sizes of Mamba-2")
    gate, down = keys.numbers("mlp_multipliers", 2) if keys.get("mlp_multipliers") is not None else (1.0, 1.0)
    parts = keys.numbers("ssm_multipliers", 5) if keys.get("ssm_multipliers") is not None else (1.0,) * 5
    normed = keys.flag("mamba_rms_norm")
    return replace(
        config,
        mamba=replace(
            config.mamba,
            normed=normed,
            gate_last=keys.flag("mamba_norm_before_gate", True) and normed,
            factors=tuple(mamba_in * part for part in parts),
        ),
        embedding_scale=embedding,
        logits_scale=head,
        attention_scale=config.attention_scale * key * attention_in**2,  # of queries and keys; values below
        multipliers=MultipliersConfig(attention_in * attention_out, mamba_out, gate, down),
    )


def gguf(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    normed = "blk.0.ssm_norm.weight" in keys.weights
    return replace(config, mamba=replace(gguf_mamba(keys, ("both",) * config.layers), normed=normed))


ARCHITECTURE = Architecture(
    name="falcon-h1",
    models="Falcon-H1 (0.5B to 34B), Falcon-H1R, Falcon-H1-Tiny",
    also=("falcon_h1",),
    names=STANDARD_NAMES | granitehybrid.NAMES | NAMES,
    gguf_names=granitehybrid.GGUF_NAMES | {"blk.*.ffn_norm": "blk.*.ffn_norm.weight"},
    block=block,
    defaults={
        "falcon_h1": {
            "vocab_size": 128000,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "hidden_act": "silu",
            "mamba_d_ssm": 1024,
            "mamba_n_heads": 128,
            "mamba_n_groups": 1,
            "mamba_d_state": 256,
            "mamba_d_conv": 4,
            "mamba_expand": 2,
            "mamba_conv_bias": True,
            "layer_kinds": ("hybrid",),
        }
    },
    huggingface=huggingface,
    gguf=gguf,
)
