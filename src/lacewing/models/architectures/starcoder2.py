"""StarCoder2: LayerNorm and linear layers with biases, a feed-forward without a gate. Reference: transformers starcoder2."""

from dataclasses import replace

from lacewing.models.architecture import Architecture
from lacewing.models.config import ModelConfig
from lacewing.models.names import STANDARD_NAMES
from lacewing.models.readers.metadata import MetadataReader

LINEARS = frozenset(("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down"))


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    keys.get("embedding_dropout"), keys.get("residual_dropout")
    return replace(config, biases=LINEARS if keys.flag("use_bias", True) else frozenset())


ARCHITECTURE = Architecture(
    name="starcoder2",
    models="StarCoder2",
    names=STANDARD_NAMES | {"mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"},
    synonyms={"rms_norm_eps": "norm_epsilon"},
    switches={"layer_norm": True, "norm_biases": True, "gated": False, "fused_gate_up": False},
    gguf_switches={"activation": "gelu_tanh"},
    defaults={
        "starcoder2": {
            "rms_norm_eps": 1e-5,
            "hidden_act": "gelu_pytorch_tanh",
            "max_position_embeddings": 4096,
            "vocab_size": 49152,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
        }
    },
    huggingface=huggingface,
)
