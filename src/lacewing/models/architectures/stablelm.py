"""StableLM: LayerNorm with a bias, partial rotation; in the model of 12B parallel branches and norms of heads with own weights.

References: transformers stablelm; llama.cpp for what a GGUF file says.
"""

from dataclasses import replace

from lacewing.models.architecture import Architecture
from lacewing.models.config import ModelConfig
from lacewing.models.names import STANDARD_NAMES
from lacewing.models.readers.metadata import MetadataReader

NAMES = {
    f"self_attn.{part}_layernorm.norms.{head}": f"attn_{part}_norm.{head}" for part in "qk" for head in range(256)
}  # a tensor a head


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    keys.get("rope_pct"), keys.get("num_heads"), keys.get("norm_eps")  # older names of what is there, too
    return replace(
        config,
        biases=frozenset(("attn_q", "attn_k", "attn_v")) if keys.flag("use_qkv_bias") else frozenset(),
        qk_norm=keys.flag("qk_layernorm"),
        parallel=keys.flag("use_parallel_residual"),
    )


def gguf(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """The key of parallel branches is wrong in files of models whose config does not name it: the weights say it."""
    keys.get("use_parallel_residual")
    return replace(config, parallel="blk.0.ffn_norm.weight" not in keys.weights)


ARCHITECTURE = Architecture(
    name="stablelm",
    models="StableLM 3B, StableLM 2 (1.6B, 12B), Stable Code 3B",
    also=("stablelm_epoch",),
    names=STANDARD_NAMES | NAMES,
    synonyms={"rms_norm_eps": "layer_norm_eps"},
    switches={"layer_norm": True, "norm_biases": True, "own_qk_norm": True},
    gguf_presence={"qk_norm": "blk.0.attn_q_norm.weight"},
    defaults={
        "stablelm": {
            "rms_norm_eps": 1e-5,
            "hidden_act": "silu",
            "max_position_embeddings": 4096,
            "vocab_size": 50304,
            "num_key_value_heads": 32,
            "partial_rotary_factor": 0.25,
        }
    },
    huggingface=huggingface,
    gguf=gguf,
)
