"""gpt-oss: attention sinks, every other layer windowed, clamped experts with biases. Reference: transformers gpt_oss.

The experts of a Hugging Face checkpoint in MXFP4 stand in blocks and scales apart from each other, which comes later.
"""

from dataclasses import replace

from lacewing.models.architecture import Architecture
from lacewing.models.config import ModelConfig
from lacewing.models.keys import Keys
from lacewing.models.names import STANDARD_NAMES

NAMES = {
    "post_attention_layernorm": "post_attention_norm",
    "self_attn.sinks": "attn_sinks.weight",
    "mlp.router": "ffn_gate_inp",
    "mlp.experts.gate_up_proj": "ffn_gate_up_exps.weight",
    "mlp.experts.gate_up_proj_bias": "ffn_gate_up_exps.bias",
    "mlp.experts.down_proj": "ffn_down_exps.weight",
    "mlp.experts.down_proj_bias": "ffn_down_exps.bias",
}


def clamped(config: ModelConfig, alpha: float, limit: float, stored_inputs_first: bool) -> ModelConfig:
    """What both formats share; Hugging Face has (E, in, out) with alternating columns of gate and up."""
    if config.mixture is None:
        return config
    mixture = replace(
        config.mixture, clamp=(alpha, limit), transposed=stored_inputs_first, interleaved=stored_inputs_first, renormalise=True
    )
    rope = replace(config.rope, truncate=config.rope.truncate and stored_inputs_first)  # GGUF does not say it
    return replace(config, mixture=mixture, rope=rope, local_rope=rope)


def huggingface(keys: Keys, config: ModelConfig) -> ModelConfig:
    for name in ("experts_per_token", "initial_context_length"):  # doubles of other keys
        keys.get(name)
    alpha, limit = keys.number("swiglu_alpha", 1.702, low=0, high=1e3), keys.number("swiglu_limit", 7.0, low=1e-3, high=1e6)
    return clamped(config, alpha, limit, stored_inputs_first=True)


def gguf(keys: Keys, config: ModelConfig) -> ModelConfig:
    return clamped(config, 1.702, 7.0, stored_inputs_first=False)


ARCHITECTURE = Architecture(
    name="gpt-oss",
    names=STANDARD_NAMES | NAMES,
    switches={"feed_forward_norm": "post_attention_norm", "sinks": True},
    biases=frozenset({"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate_inp"}),
    mixture={"expert_biases": True},
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
