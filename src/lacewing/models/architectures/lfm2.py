"""LFM2 and LFM2.5 of Liquid AI: gated short convolutions in most layers, attention with normed heads in the others.

Reference: transformers lfm2; llama.cpp for what a GGUF file says.
"""

from dataclasses import replace
from functools import partial

from lacewing.models.architecture import Architecture
from lacewing.models.blocks.attention import attention
from lacewing.models.blocks.decoder import forward_of, residual_block
from lacewing.models.builder import Block, Builder
from lacewing.models.config import ModelConfig, ShortConvolutionConfig
from lacewing.models.names import STANDARD_NAMES
from lacewing.models.readers.metadata import MetadataReader
from lacewing.program.ops import Buffer, GatedActivation, ShortConvolution
from lacewing.program.states import FixedState

NAMES = {
    "embedding_norm": "output_norm",
    "operator_norm": "attn_norm",
    "ffn_norm": "ffn_norm",
    "self_attn.out_proj": "attn_output",
    "self_attn.q_layernorm": "attn_q_norm",
    "self_attn.k_layernorm": "attn_k_norm",
    "conv.in_proj": "shortconv.in_proj",
    "conv.conv": "shortconv.conv",
    "conv.out_proj": "shortconv.out_proj",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w3": "ffn_up",
    "feed_forward.w2": "ffn_down",
}
# keys that repeat others or say how training began
UNUSED = ("block_dim", "block_mlp_init_scale", "block_norm_eps", "block_out_init_scale", "block_use_xavier_init", "conv_dim",
          "conv_dim_out", "conv_use_xavier_init", "num_heads", "theta")  # fmt: skip
KINDS = ("full_attention", "conv")


def block(config: ModelConfig, layer: int) -> Block:
    convolution = config.short_convolution
    if convolution is None or not convolution.layers[layer]:
        return residual_block(attention, forward_of(config, layer))
    return residual_block(partial(short_convolution, convolution), forward_of(config, layer))


def short_convolution(convolution: ShortConvolutionConfig, b: Builder, layer: int) -> None:
    """normed (T, D) to branch (T, D): c * convolution(b * x), with b, c and x products of the same input."""
    width, name = b.config.width, f"blk.{layer}.shortconv.conv"
    parts, mixed = Buffer("short_convolution", 3 * width), Buffer("convolved", width).view()
    gate_in, gate_out, x = (parts.view(part * width, width) for part in range(3))
    b.linear(b.normed, layer, ("shortconv.in_proj", parts.view()))
    state = b.state(FixedState((("conv", (convolution.kernel - 1, width)),)))
    weight = b.weight(f"{name}.weight", width, convolution.kernel)
    bias = b.weight(f"{name}.bias", width) if convolution.biases else None
    b.ops += [
        GatedActivation(gate_in, x, gate_in, "none"),
        ShortConvolution(gate_in, weight, mixed, state, bias),
        GatedActivation(mixed, gate_out, mixed, "none"),
    ]
    b.linear(mixed, layer, ("shortconv.out_proj", b.branch))


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    for name in UNUSED:
        keys.get(name)
    for name in ("block_use_swiglu", "use_pos_enc"):
        if not keys.flag(name, True):
            raise keys.error(name, "is false, which this version does not know")
    width = keys.integer("block_ff_dim", keys.integer("intermediate_size"))
    biases = keys.flag("conv_bias")
    convolution = ShortConvolutionConfig(
        keys.integer("conv_L_cache", 3, low=2, high=64), _huggingface_layers(keys, config.layers), biases
    )
    return replace(
        config,
        eps=keys.number("norm_eps", 1e-5, low=1e-20, high=1),
        feed_forward=_adjusted(keys, width),
        tied_output=keys.flag("tie_embedding", config.tied_output),
        biases=config.biases | ({"shortconv.in_proj", "shortconv.out_proj"} if biases else frozenset()),
        short_convolution=convolution,
    )


def _huggingface_layers(keys: MetadataReader, layers: int) -> tuple[bool, ...]:
    """Which layers are convolutions: by layer_types, in older files by the list of those with attention."""
    attending = keys.get("full_attn_idxs")
    if keys.get("layer_types") is not None:
        return tuple(kind == "conv" for kind in keys.words("layer_types", layers, KINDS))
    if attending is None:
        return (False,) * layers
    if not isinstance(attending, list) or not all(type(layer) is int for layer in attending):
        raise keys.error("full_attn_idxs", "must be a list of layers")
    return tuple(layer not in attending for layer in range(layers))


def _adjusted(keys: MetadataReader, width: int) -> int:
    """F of the weights: unless it is switched off, two thirds of the named width, times a factor, up to a whole multiple."""
    factor = keys.number("block_ffn_dim_multiplier", 1, low=1e-3, high=1e3)
    multiple = keys.integer("block_multiple_of", 256)
    if not keys.flag("block_auto_adjust_ff_dim", True):
        return width
    return -(-int(factor * int(2 * width / 3)) // multiple) * multiple


def gguf(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """Layers of 0 key heads are convolutions."""
    kernel, key_heads = keys.integer("shortconv.l_cache", low=2, high=64), keys.get("attention.head_count_kv")
    if not isinstance(key_heads, list):
        key_heads = [key_heads] * config.layers
    if len(key_heads) != config.layers:
        raise keys.error("attention.head_count_kv", f"has {len(key_heads)} numbers; there are {config.layers} layers")
    return replace(config, short_convolution=ShortConvolutionConfig(kernel, tuple(count == 0 for count in key_heads)))


ARCHITECTURE = Architecture(
    name="lfm2",
    models="LFM2 and LFM2.5 (dense)",
    names=STANDARD_NAMES | NAMES,
    gguf_names={"token_embd_norm.weight": "output_norm.weight"},
    switches={"qk_norm": True},
    hybrid=True,
    block=block,
    defaults={
        "lfm2": {
            "rms_norm_eps": 1e-5,
            "hidden_act": "silu",
            "max_position_embeddings": 128000,
            "vocab_size": 65536,
            "hidden_size": 2560,
            "intermediate_size": 12288,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "rope_theta": 1e6,
            "tie_word_embeddings": True,
            "layer_kinds": ("conv",),
        }
    },
    huggingface=huggingface,
    gguf=gguf,
)
