"""Phi-3.5-MoE: LayerNorm with a bias, biases on attention and output, two experts by SparseMixer. Reference: transformers phimoe.

llama.cpp weighs the two by their softmax instead, and its converter leaves out the factor of cos and sin that the config has.
"""

from dataclasses import replace

from lacewing.models.architecture import Architecture
from lacewing.models.architectures.llama import MIXTRAL_NAMES
from lacewing.models.config import ModelConfig
from lacewing.models.names import STANDARD_NAMES
from lacewing.models.readers.metadata import MetadataReader

ROUTER = {"block_sparse_moe.router": "ffn_gate_inp"}  # as transformers 5 may store it
JITTER = 0.01  # of the router, which GGUF files leave out


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """Of the jitter only that of the router has a meaning outside of training. cos and sin have a factor of their own."""
    keys.get("input_jitter_noise")
    mixture, rope = config.mixture, config.rope
    if mixture is not None:
        if mixture.active != 2:
            raise keys.error("num_experts_per_tok", f"is {mixture.active}; SparseMixer chooses 2")
        mixture = replace(mixture, jitter=keys.number("router_jitter_noise", JITTER, low=0, high=1))
    if rope.kind == "longrope":
        scaling = keys.nested("rope_scaling") or keys.nested("rope_parameters")
        short, long = (scaling.number(f"{name}_mscale", low=1e-3, high=1e3) if scaling else 1.0 for name in ("short", "long"))
        if short != long:
            raise keys.error("rope_scaling", f"has the factors {short:g} and {long:g}; this version knows one for all contexts")
        rope = replace(rope, magnitude=short)
    return replace(config, mixture=mixture, rope=rope, local_rope=rope, output_bias=keys.flag("lm_head_bias"))


ARCHITECTURE = Architecture(
    name="phimoe",
    models="Phi-3.5-MoE, Phi-mini-MoE, Phi-tiny-MoE",
    names=STANDARD_NAMES | MIXTRAL_NAMES | ROUTER,
    mixture={"gating": "sparsemixer", "jitter": JITTER},
    switches={"layer_norm": True, "norm_biases": True},
    gguf_presence={"output_bias": "output.bias"},
    defaults={
        "phimoe": {
            "rms_norm_eps": 1e-5,
            "hidden_act": "silu",
            "max_position_embeddings": 131072,
            "vocab_size": 32064,
            "num_key_value_heads": 8,
            "rope_theta": 1e6,
            "num_local_experts": 16,
            "num_experts_per_tok": 2,
            "intermediate_size": 6400,
            "rope_kinds": {"su": "longrope"},
        }
    },
    huggingface=huggingface,
)
