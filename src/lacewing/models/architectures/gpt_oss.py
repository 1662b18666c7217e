"""gpt-oss: attention sinks, every other layer windowed, clamped experts with biases. Reference: transformers gpt_oss."""

from dataclasses import replace

from lacewing.models.architecture import Architecture
from lacewing.models.config import ModelConfig
from lacewing.models.names import STANDARD_NAMES
from lacewing.models.readers.metadata import MetadataReader

NAMES = {
    "post_attention_layernorm": "post_attention_norm",
    "self_attn.sinks": "attn_sinks.weight",
    "mlp.router": "ffn_gate_inp",
    "mlp.experts.gate_up_proj": "ffn_gate_up_exps.weight",
    "mlp.experts.gate_up_proj_blocks": "ffn_gate_up_exps.weight",
    "mlp.experts.gate_up_proj_scales": "ffn_gate_up_exps.weight_scale_inv",
    "mlp.experts.down_proj_blocks": "ffn_down_exps.weight",
    "mlp.experts.down_proj_scales": "ffn_down_exps.weight_scale_inv",
    "mlp.experts.gate_up_proj_bias": "ffn_gate_up_exps.bias",
    "mlp.experts.down_proj": "ffn_down_exps.weight",
    "mlp.experts.down_proj_bias": "ffn_down_exps.bias",
}


def clamped(config: ModelConfig, alpha: float, limit: float, one_stack: bool, transposed: bool) -> ModelConfig:
    """What both formats share; `one_stack`: gate and up alternate in one weight, which may be (E, in, out)."""
    if config.mixture is None:
        return config
    mixture = replace(config.mixture, clamp=(alpha, limit), renormalise=True, interleaved=one_stack, transposed=transposed)
    return replace(config, mixture=mixture)


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """Gate and up alternate in one weight, which is (E, in, out) unless it is in MXFP4."""
    for name in ("experts_per_token", "initial_context_length"):  # doubles of other keys
        keys.get(name)
    alpha, limit = keys.number("swiglu_alpha", 1.702, low=0, high=1e3), keys.number("swiglu_limit", 7.0, low=1e-3, high=1e6)
    return clamped(config, alpha, limit, True, transposed=config.scale_block is None)


def gguf(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """The file does not say that the bounds of YaRN are not rounded."""
    rope = replace(config.rope, truncate=False)
    one_stack = config.mixture is not None and config.mixture.interleaved
    return clamped(replace(config, rope=rope, local_rope=rope), 1.702, 7.0, one_stack, False)


ARCHITECTURE = Architecture(
    name="gpt-oss",
    models="gpt-oss-20b and 120b",
    names=STANDARD_NAMES | NAMES,
    switches={"feed_forward_norm": "post_attention_norm", "sinks": True},
    biases=frozenset({"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate_inp"}),
    mixture={"expert_biases": True},
    packed_experts=True,
    uncounted=("token_embd.weight",),
    gguf_defaults={"attention.sliding_window_pattern": 2},
    defaults={
        "gpt_oss": {
            "rms_norm_eps": 1e-5,
            "hidden_act": "silu",
            "max_position_embeddings": 131072,
            "vocab_size": 201088,
            "head_dim": 64,
            "num_key_value_heads": 8,
            "sliding_window": 128,
            "_sliding_window_pattern": 2,
            "rope_theta": 150000.0,
            "num_local_experts": 128,
            "num_experts_per_tok": 4,
        }
    },
    huggingface=huggingface,
    gguf=gguf,
)
