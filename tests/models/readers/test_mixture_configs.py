"""Configurations with the keys that makers publish and the values of our reference tables: every key is known and understood.

They were written down from memory and the tables, not fetched.
"""

from pathlib import Path

import pytest

from lacewing.errors import OptionError, UnsupportedModelError
from lacewing.formats.checkpoint import ByteRange, Checkpoint, TensorInfo
from lacewing.models.opening import find_architecture
from lacewing.models.readers.gguf import read_gguf
from lacewing.models.readers.huggingface import read_huggingface
from lacewing.quants import by_name

NOISE = {"architectures": ["X"], "attention_dropout": 0.0, "initializer_range": 0.02, "torch_dtype": "bfloat16", "use_cache": True,
         "transformers_version": "4.46", "bos_token_id": 0, "eos_token_id": 1, "hidden_act": "silu", "rms_norm_eps": 1e-6,
         "tie_word_embeddings": False, "attention_bias": False}  # fmt: skip
YARN = {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096, "type": "yarn"}  # fmt: skip
R1 = {"model_type": "deepseek_v3", "auto_map": {"AutoConfig": "x"}, "aux_loss_alpha": 0.001, "ep_size": 1,
      "first_k_dense_replace": 3, "hidden_size": 7168, "intermediate_size": 18432, "kv_lora_rank": 512,
      "max_position_embeddings": 163840,
      "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_group": 8, "n_routed_experts": 256, "n_shared_experts": 1,
      "norm_topk_prob": True, "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 61,
      "num_key_value_heads": 128, "num_nextn_predict_layers": 1, "pretraining_tp": 1, "q_lora_rank": 1536, "qk_nope_head_dim": 128,
      "qk_rope_head_dim": 64, "rope_scaling": YARN, "rope_theta": 10000, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid",
      "seq_aux": True, "topk_group": 4, "topk_method": "noaux_tc", "v_head_dim": 128, "vocab_size": 129280,
      "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
                              "weight_block_size": [128, 128]}}  # fmt: skip
V1 = {"model_type": "deepseek", "auto_map": {"AutoConfig": "x"}, "aux_loss_alpha": 0.001, "first_k_dense_replace": 1,
      "hidden_size": 2048, "intermediate_size": 10944, "max_position_embeddings": 4096, "moe_intermediate_size": 1408,
      "moe_layer_freq": 1, "n_routed_experts": 64, "n_shared_experts": 2, "norm_topk_prob": False, "num_attention_heads": 16,
      "num_experts_per_tok": 6, "num_hidden_layers": 28, "num_key_value_heads": 16, "pretraining_tp": 1, "rope_scaling": None,
      "rope_theta": 10000, "scoring_func": "softmax", "seq_aux": True, "vocab_size": 102400}  # fmt: skip
V2_LITE = R1 | {"model_type": "deepseek_v2", "hidden_size": 2048, "intermediate_size": 10944, "num_hidden_layers": 27,
                "num_attention_heads": 16, "num_key_value_heads": 16, "q_lora_rank": None, "n_routed_experts": 64,
                "n_shared_experts": 2, "num_experts_per_tok": 6, "moe_intermediate_size": 1408, "first_k_dense_replace": 1,
                "n_group": 1, "topk_group": 1, "topk_method": "greedy", "scoring_func": "softmax", "norm_topk_prob": False,
                "routed_scaling_factor": 1.0, "rope_scaling": YARN | {"mscale": 0.707, "mscale_all_dim": 0.707},
                "vocab_size": 102400, "num_nextn_predict_layers": None, "quantization_config": None}  # fmt: skip
OSS = {"model_type": "gpt_oss", "attention_bias": True, "experts_per_token": 4, "head_dim": 64, "hidden_size": 2880,
       "initial_context_length": 4096, "intermediate_size": 2880, "layer_types": ["sliding_attention", "full_attention"] * 12,
       "max_position_embeddings": 131072, "num_attention_heads": 64, "num_experts_per_tok": 4, "num_hidden_layers": 24,
       "num_key_value_heads": 8, "num_local_experts": 32, "output_router_logits": False, "rope_theta": 150000,
       "rope_scaling": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "original_max_position_embeddings": 4096,
                        "rope_type": "yarn", "truncate": False},
       "quantization_config": {"modules_to_not_convert": ["lm_head"], "quant_method": "mxfp4"}, "router_aux_loss_coef": 0.9,
       "sliding_window": 128, "swiglu_limit": 7.0, "vocab_size": 201088, "rms_norm_eps": 1e-5}  # fmt: skip
SCOUT = {"model_type": "llama4_text", "attention_chunk_size": 8192, "attn_scale": 0.1, "attn_temperature_tuning": True,
         "floor_scale": 8192, "head_dim": 128, "hidden_size": 5120, "interleave_moe_layer_step": 1, "intermediate_size": 8192,
         "intermediate_size_mlp": 16384, "max_position_embeddings": 10485760, "moe_layers": list(range(48)),
         "no_rope_layers": [1, 1, 1, 0] * 12, "num_attention_heads": 40, "num_experts_per_tok": 1, "num_hidden_layers": 48,
         "num_key_value_heads": 8, "num_local_experts": 16, "output_router_logits": False, "rope_theta": 500000.0,
         "rope_scaling": {"factor": 16.0, "high_freq_factor": 1.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192,
                          "rope_type": "llama3"}, "router_aux_loss_coef": 0.001, "router_jitter_noise": 0.0, "use_qk_norm": True,
         "vocab_size": 202048, "_attn_implementation_autoset": True, "for_llm_compressor": False}  # fmt: skip
QWEN = {"model_type": "qwen3_moe", "decoder_sparse_step": 1, "head_dim": 128, "hidden_size": 2048, "intermediate_size": 6144,
        "max_position_embeddings": 40960, "max_window_layers": 48, "mlp_only_layers": [], "moe_intermediate_size": 768,
        "norm_topk_prob": True, "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48,
        "num_key_value_heads": 4, "output_router_logits": False, "rope_scaling": None, "rope_theta": 1000000.0,
        "router_aux_loss_coef": 0.001, "sliding_window": None, "use_sliding_window": False, "vocab_size": 151936}  # fmt: skip
GLM = {"model_type": "glm4_moe", "attention_bias": True, "first_k_dense_replace": 3, "head_dim": 128, "hidden_size": 5120,
       "intermediate_size": 12288, "max_position_embeddings": 131072, "moe_intermediate_size": 1536, "n_group": 1,
       "n_routed_experts": 160, "n_shared_experts": 1, "norm_topk_prob": True, "num_attention_heads": 96, "num_experts_per_tok": 8,
       "num_hidden_layers": 92, "num_key_value_heads": 8, "num_nextn_predict_layers": 1, "partial_rotary_factor": 0.5,
       "rope_scaling": None, "rope_theta": 1000000, "routed_scaling_factor": 2.5, "topk_group": 1, "use_qk_norm": True,
       "vocab_size": 151552, "rms_norm_eps": 1e-5}  # fmt: skip


def read(config):
    config = NOISE | config
    checkpoint = Checkpoint(Path("model"), "safetensors", {"config.json": config}, {})
    tensors = {"token_embd.weight": TensorInfo("token_embd.weight", (1,), by_name("BF16"), ())}
    return read_huggingface(checkpoint, find_architecture(config["model_type"], "model"), tensors)[0]


def test_deepseek_r1():
    found = read(R1)
    m, latent = found.mixture, found.latent
    assert (m.experts, m.active, m.groups, m.groups_used, m.group_best, m.gating) == (256, 8, 8, 4, 2, "sigmoid")
    assert (m.bias, m.renormalise, m.scale, m.shared_width, sum(m.layers)) == (True, True, 2.5, 2048, 58)
    assert (latent.q_rank, latent.rank, latent.nope, latent.rope, latent.value, latent.eps) == (1536, 512, 128, 64, 128, 1e-6)
    assert found.attention_scale == pytest.approx(192**-0.5 * 1.873854, rel=1e-5)
    assert (found.scale_block, found.predicting_layers, found.rope.magnitude, found.adjacent_rope) == ((128, 128), 1, 1.0, True)


def test_deepseek_v2_lite():
    found = read(V2_LITE)
    m = found.mixture
    assert (m.experts, m.active, m.groups, m.gating, m.bias, m.renormalise, m.scale) == (64, 6, 1, "softmax", False, False, 1.0)
    assert (m.shared_width, found.latent.q_rank, found.scale_block) == (2816, None, None)
    assert found.attention_scale == pytest.approx(192**-0.5 * 1.589626, rel=1e-5)


def test_gpt_oss():
    found = read(OSS)
    m = found.mixture
    assert (m.experts, m.active, m.renormalise, m.clamp, m.expert_biases) == (32, 4, True, (1.702, 7.0), True)
    assert (found.sinks, found.windows[:2], found.rope.truncate, found.scale_block) == (True, (128, None), False, (1, 32))
    assert not m.transposed
    assert read(OSS | {"quantization_config": None}).mixture.transposed
    assert read(OSS | {"layer_types": None}).windows == found.windows


def test_llama_4():
    found = read(SCOUT)
    m = found.mixture
    assert (m.experts, m.active, m.weight_on_input, m.gating, m.width, m.shared_width) == (16, 1, True, "sigmoid", 8192, 8192)
    assert (found.chunks[:4], sorted(found.nope_layers)[:2], found.qk_norm_after_rope) == ((8192, 8192, 8192, None), [3, 7], True)
    assert (found.attention_temperature.length, found.attention_temperature.offset, found.attention_temperature.rotated_layers) == (
        8192,
        1,
        False,
    )
    maverick = SCOUT | {"num_local_experts": 128, "interleave_moe_layer_step": 2, "moe_layers": list(range(1, 48, 2)),
                        "no_rope_layers": [], "use_qk_norm": False, "rope_scaling": None, "attn_temperature_tuning": 4}  # fmt: skip
    found = read(maverick)
    assert found.mixture.layers == (False, True) * 24
    assert (found.feed_forward, sorted(found.nope_layers)[0], found.qk_norm_after_rope) == (16384, 3, False)


def test_qwen_and_glm():
    m = read(QWEN).mixture
    assert (m.experts, m.active, m.width, m.gating, m.renormalise, m.bias, all(m.layers)) == (
        128,
        8,
        768,
        "softmax",
        True,
        False,
        True,
    )
    found = read(GLM)
    m = found.mixture
    assert (m.experts, m.active, m.gating, m.bias, m.scale, m.layers[:4]) == (
        160,
        8,
        "sigmoid",
        True,
        2.5,
        (False, False, False, True),
    )
    assert (found.biases, found.qk_norm, found.rope.width) == ({"attn_q", "attn_k", "attn_v"}, True, 64)


def test_deepseek_moe():
    m = read(V1).mixture
    assert (m.experts, m.active, m.width, m.shared_width, m.layers[:2]) == (64, 6, 1408, 2816, (False, True))
    assert (m.gating, m.bias, m.renormalise, m.groups, m.scale) == ("softmax", False, False, 1, 1.0)
    with pytest.raises(UnsupportedModelError, match="moe_layer_freq is 2"):
        read(V1 | {"moe_layer_freq": 2})


def test_kimi_k2():
    found = read(R1 | {"model_type": "kimi_k2", "n_group": 1, "topk_group": 1, "n_routed_experts": 384,
                       "routed_scaling_factor": 2.827, "first_k_dense_replace": 1, "rope_theta": 50000.0,
                       "rope_scaling": YARN | {"factor": 32.0, "beta_fast": 1.0},
                       "num_nextn_predict_layers": 0})  # fmt: skip
    assert (found.mixture.experts, found.mixture.scale, found.rope.beta_fast, found.rope.beta_slow) == (384, 2.827, 1.0, 1.0)
    assert found.attention_scale == pytest.approx(192**-0.5 * 1.813260, rel=1e-5)


V3_KEYS = {"block_count": 61, "embedding_length": 7168, "feed_forward_length": 18432, "context_length": 163840,
           "attention.head_count": 128, "attention.head_count_kv": 128, "attention.key_length": 192, "attention.value_length": 128,
           "attention.layer_norm_rms_epsilon": 1e-6, "attention.q_lora_rank": 1536, "attention.kv_lora_rank": 512,
           "rope.dimension_count": 64, "rope.freq_base": 10000.0, "rope.scaling.type": "yarn", "rope.scaling.factor": 40.0,
           "rope.scaling.original_context_length": 4096, "rope.scaling.yarn_log_multiplier": 0.1, "expert_count": 256,
           "expert_used_count": 8, "expert_shared_count": 1, "expert_feed_forward_length": 2048, "leading_dense_block_count": 3,
           "expert_gating_func": 2, "expert_weights_norm": True, "expert_weights_scale": 2.5}  # fmt: skip


def read_keys(vocab=129280, names=("blk.3.exp_probs_b.bias",), **changes):
    """A GGUF file of the deepseek2 family as old converters and Ollama wrote them, so far as its config goes."""
    keys = V3_KEYS | {name.replace("__", "."): value for name, value in changes.items()}
    width, place = keys["embedding_length"], (ByteRange(Path("none"), 0, 0),)
    tensors = {"token_embd.weight": TensorInfo("token_embd.weight", (vocab, width), by_name("Q4_K"), place)}
    tensors |= {name: TensorInfo(name, (1,), by_name("F32"), place) for name in names}
    metadata = {f"deepseek2.{name}": value for name, value in keys.items() if value is not None}
    return read_gguf(Checkpoint(Path("old.gguf"), "gguf", metadata, tensors), find_architecture("deepseek2", "old"))[0]


def test_old_files_of_deepseek_v3_lack_the_groups():
    found = read_keys()
    assert (found.mixture.groups, found.mixture.groups_used, found.mixture.group_best, found.mixture.bias) == (8, 4, 2, True)
    assert found.attention_scale == pytest.approx(192**-0.5 * 1.873854, rel=1e-5)
    assert read_keys(expert_group_count=1, expert_group_used_count=1).mixture.groups == 1


LARGE = {"expert_count": 128, "expert_used_count": 4, "expert_feed_forward_length": 4096, "expert_gating_func": 1,
         "rope__scaling__factor": 36.0, "rope__scaling__original_context_length": 8192, "expert_weights_scale": 1.0}  # fmt: skip


def test_mistral_large_3_is_known_by_its_sizes():
    """Ollama's file says nothing of the temperature; the magnitude of YaRN is not applied to attention."""
    found = read_keys(131072, (), **LARGE)
    assert (found.attention_temperature.beta, found.attention_temperature.length, found.attention_temperature.offset) == (
        0.1,
        8192,
        0,
    )
    assert found.attention_scale == pytest.approx(192**-0.5)
    assert (found.mixture.gating, found.mixture.groups, found.rope.magnitude) == ("softmax", 1, 1.0)


MISTRAL_4 = {name: value for name, value in R1.items() if name not in ("topk_method", "scoring_func", "quantization_config")} | {
    "model_type": "mistral4", "n_routed_experts": 128, "num_experts_per_tok": 4, "n_group": 1, "topk_group": 1,
    "vocab_size": 131072, "num_nextn_predict_layers": 0,
    "rope_scaling": YARN | {"factor": 36.0, "original_max_position_embeddings": 8192, "llama_4_scaling_beta": 0.1}}  # fmt: skip


@pytest.mark.parametrize(("choice", "large", "small"), [(None, False, True), ("apply", True, True), ("skip", False, False)])
def test_the_switch_over_the_magnitude(monkeypatch, choice, large, small):
    if choice is not None:
        monkeypatch.setenv("LACEWING_MISTRAL_MAGNITUDE", choice)
    for found, applied in ((read_keys(131072, (), **LARGE), large), (read(MISTRAL_4), small)):
        assert found.attention_scale == pytest.approx(192**-0.5 * (1.845120 if applied else 1), rel=1e-5)
        assert (found.attention_temperature.beta, found.attention_temperature.length) == (0.1, 8192)
    assert read(R1).attention_scale == pytest.approx(192**-0.5 * 1.873854, rel=1e-5)  # of DeepSeek nothing is disputed


def test_a_wrong_word_for_the_switch(monkeypatch):
    monkeypatch.setenv("LACEWING_MISTRAL_MAGNITUDE", "yes")
    with pytest.raises(OptionError, match="'yes'; it must be apply or skip"):
        read_keys(131072, (), **LARGE)


def test_glm_4_7_flash_is_known_by_its_sizes():
    sizes = {"embedding_length": 2048, "attention__head_count": 20, "attention__head_count_kv": 20, "rope__scaling__type": None,
             "rope__scaling__yarn_log_multiplier": None, "rope__scaling__factor": None, "expert_count": 64, "expert_used_count": 4,
             "attention__key_length": 256, "attention__value_length": 256, "expert_gating_func": None}  # fmt: skip
    found = read_keys(154880, block_count=47, **sizes)
    assert (found.mixture.gating, found.latent.nope, found.attention_scale) == ("sigmoid", 192, 1 / 16)
    assert read_keys(154880, block_count=48, nextn_predict_layers=1, **sizes).layers == 47
