"""Nemotron-H, Nemotron Nano 2 and Nemotron 3: every layer is Mamba-2, attention without RoPE, a feed-forward or experts.

Feed-forwards have no gate, but a squared ReLU; experts may work in a latent space. References: transformers nemotron_h; llama.cpp
for what a GGUF file says. Time steps are limited by `time_step_limit`, as in the makers' modeling_nemotron_h.py: published files
have no limit there. Transformers 5.24 raises them to `time_step_min`, in prompts alone; llama.cpp has no limits.
"""

from dataclasses import replace
from functools import partial

from lacewing.models.architecture import Architecture
from lacewing.models.architectures.granitehybrid import GGUF_NAMES
from lacewing.models.blocks.attention import attention
from lacewing.models.blocks.decoder import single_block
from lacewing.models.blocks.mamba import mamba
from lacewing.models.builder import Block, Builder
from lacewing.models.config import MixtureConfig, ModelConfig
from lacewing.models.readers.mamba import by_layer, gguf_mamba, huggingface_mamba, with_biases
from lacewing.models.readers.metadata import MetadataReader
from lacewing.program.ops import Activation, Buffer, Combine, ExpertLinear, Route

NAMES = {
    "embeddings": "token_embd",
    "norm_f": "output_norm",
    "lm_head": "output",
    "norm.weight": "attn_norm.weight",
    "mixer.in_proj": "ssm_in",
    "mixer.conv1d": "ssm_conv1d",
    "mixer.dt_bias": "ssm_dt.bias",
    "mixer.A_log": "ssm_a.weight",
    "mixer.D": "ssm_d.weight",
    "mixer.norm": "ssm_norm",
    "mixer.out_proj": "ssm_out",
    "mixer.q_proj": "attn_q",
    "mixer.k_proj": "attn_k",
    "mixer.v_proj": "attn_v",
    "mixer.o_proj": "attn_output",
    "mixer.up_proj": "ffn_up",
    "mixer.down_proj": "ffn_down",
    "mixer.gate": "ffn_gate_inp",
    "mixer.gate.e_score_correction_bias": "exp_probs_b.bias",
    "mixer.experts.*.up_proj": "ffn_up_exps.*",
    "mixer.experts.*.down_proj": "ffn_down_exps.*",
    "mixer.experts.up_proj": "ffn_up_exps.weight",
    "mixer.experts.down_proj": "ffn_down_exps.weight",
    "mixer.shared_experts.up_proj": "ffn_up_shexp",
    "mixer.shared_experts.down_proj": "ffn_down_shexp",
    "mixer.fc1_latent_proj": "ffn_latent_down",
    "mixer.fc2_latent_proj": "ffn_latent_up",
}
LETTERS = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
KINDS = {kind: kind for kind in LETTERS.values()} | {"linear_attention": "mamba", "full_attention": "attention"}


def block(config: ModelConfig, layer: int) -> Block:
    kind = "attention" if config.mamba is None else config.mamba.kinds[layer]
    if kind == "mamba" and config.mamba is not None:
        return single_block(partial(mamba, config.mamba))
    if kind == "moe" and config.mixture is not None:
        return single_block(partial(experts, config.mixture))
    return single_block(attention if kind == "attention" else feed_forward)


def feed_forward(b: Builder, layer: int) -> None:
    """normed (T, D) to branch (T, D)."""
    hidden = Buffer("hidden", b.config.feed_forward).view()
    b.linear(b.normed, layer, ("ffn_up", hidden))
    b.ops.append(Activation(hidden, hidden, "relu2"))
    b.linear(hidden, layer, ("ffn_down", b.branch))


def experts(m: MixtureConfig, b: Builder, layer: int) -> None:
    """normed (T, D) to branch (T, D): chosen experts on the way through the latent space, and a shared one beside it."""
    width, name = m.latent or b.config.width, f"blk.{layer}"
    scores, ids = Buffer("scores", m.experts).view(), Buffer("expert_ids", m.active).view()
    weights, hidden = Buffer("expert_weights", m.active).view(), Buffer("experts", m.active * m.width).view()
    outs, shared = Buffer("expert_outs", m.active * width).view(), Buffer("shared_experts", m.shared_width).view()
    latent = Buffer("expert_latent", width).view() if m.latent else b.normed
    b.linear(b.normed, layer, ("ffn_gate_inp", scores))
    bias = b.weight(f"{name}.exp_probs_b.bias", m.experts)
    b.ops.append(Route(scores, ids, weights, m.gating, bias, m.groups, m.groups_used, m.group_best, m.renormalise, m.scale, layer))
    if m.latent:
        b.linear(b.normed, layer, ("ffn_latent_down", latent))
    up = b.weight(f"{name}.ffn_up_exps.weight", m.experts, m.width, width)
    down = b.weight(f"{name}.ffn_down_exps.weight", m.experts, width, m.width)
    b.ops += [
        ExpertLinear(latent, ids, (up,), (hidden,)),
        Activation(hidden, hidden, "relu2"),
        ExpertLinear(hidden, ids, (down,), (outs,), separate=True),
    ]
    b.linear(b.normed, layer, ("ffn_up_shexp", shared))
    b.ops.append(Activation(shared, shared, "relu2"))
    b.linear(shared, layer, ("ffn_down_shexp", b.branch))
    if not m.latent:
        b.ops.append(Combine(outs, weights, b.branch, m.active, b.branch))
        return
    routed = Buffer("routed", b.config.width).view()
    b.ops.append(Combine(outs, weights, latent, m.active))
    b.linear(latent, layer, ("ffn_latent_up", routed))
    b.ops.append(Combine(routed, None, b.branch, 1, b.branch))


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    for name, known in (("mlp_hidden_act", "relu2"), ("mamba_hidden_act", "silu")):
        keys.choice(name, {known: known}, known)
    kinds = _kinds(keys, config.layers)
    head = keys.integer("head_dim", keys.integer("attention_head_dim", 128, high=2**16), high=2**16)
    keys.get("mamba_proj_bias")  # declared, but use_bias decides
    heads, width = keys.integer("mamba_num_heads", high=2**16), keys.integer("mamba_head_dim", high=2**16)
    latent, shared = keys.integer("moe_latent_size", 0, low=0), keys.integer("moe_shared_expert_intermediate_size")
    mixture = None if config.mixture is None or "moe" not in kinds else replace(
        config.mixture,
        layers=tuple(kind == "moe" for kind in kinds),
        shared_width=shared,
        latent=latent,
    )  # fmt: skip
    config = with_biases(config, keys.flag("use_conv_bias", True), keys.flag("use_bias"))
    return replace(
        huggingface_mamba(keys, config, kinds, heads, width, ("ssm_state_size", "n_groups", "conv_kernel")),
        eps=keys.number("layer_norm_epsilon", 1e-5, low=1e-20, high=1),
        head_width=head,
        attention_scale=head**-0.5,
        mixture=mixture,
        windows=(None,) * config.layers,  # as in the makers' code, whatever sliding_window says
        nope_layers=frozenset(range(config.layers)),
    )


def _kinds(keys: MetadataReader, layers: int) -> tuple[str, ...]:
    """By a list of words, or in older files by a letter for each layer."""
    listed, pattern = keys.get("layers_block_type"), keys.get("hybrid_override_pattern")
    if listed is not None:
        return tuple(KINDS[kind] for kind in keys.words("layers_block_type", layers, KINDS))
    letters = list(pattern) if isinstance(pattern, str) else pattern
    return tuple(LETTERS[kind] for kind in keys.words("hybrid_override_pattern", layers, LETTERS, letters))


def gguf(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """Layers of neither key heads nor a feed-forward have Mamba-2; those with a feed-forward have nothing else."""
    key_heads, widths = (by_layer(keys, name, config.layers) for name in ("attention.head_count_kv", "feed_forward_length"))
    forward = "mlp" if config.mixture is None else "moe"
    kinds = tuple(forward if width else "attention" if heads else "mamba" for heads, width in zip(key_heads, widths, strict=True))
    mixture = config.mixture
    if mixture is not None:
        layers = tuple(kind == "moe" for kind in kinds)
        mixture = replace(mixture, layers=layers, latent=keys.integer("moe_latent_size", 0, low=0))
    return replace(
        config, mamba=gguf_mamba(keys, kinds), mixture=mixture, nope_layers=frozenset(range(config.layers)), fused_gate_up=False
    )


ARCHITECTURE = Architecture(
    name="nemotron_h",
    models="Nemotron-H, Nemotron Nano 2, Nemotron 3 Nano and Super",
    also=("nemotron_h_moe",),
    names=NAMES,
    gguf_names=GGUF_NAMES,
    mixture={"gating": "sigmoid", "bias": True},
    hybrid=True,
    block=block,
    defaults={
        "nemotron_h": {
            "vocab_size": 131072,
            "hidden_size": 4096,
            "intermediate_size": 21504,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
            "hidden_act": "silu",
            "ssm_state_size": 128,
            "mamba_num_heads": 128,
            "mamba_head_dim": 64,
            "n_groups": 8,
            "conv_kernel": 4,
            "n_routed_experts": 8,
            "n_shared_experts": 1,
            "moe_intermediate_size": 7688,
            "moe_shared_expert_intermediate_size": 7688,
            "num_experts_per_tok": 2,
            "norm_topk_prob": True,
            "layer_kinds": ("linear_attention", "mlp", "moe"),
        }
    },
    huggingface=huggingface,
    gguf=gguf,
)
