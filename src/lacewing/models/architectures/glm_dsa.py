"""GLM-5, 5.1 and 5.2: as DeepSeek V3.2, but some layers see the positions that the indexer of an earlier layer chose.

References: transformers glm_moe_dsa; llama.cpp for what a GGUF file says.
"""

from dataclasses import replace

from lacewing.models.architectures import deepseek2, deepseek32
from lacewing.models.config import ModelConfig
from lacewing.models.readers.metadata import MetadataReader

KINDS = {"full": True, "shared": False}
LONG_CONTEXT = 2**20  # of GLM-5.2, whose older GGUF files do not say which layers share


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    keys.get("index_share_for_mtp_iteration")  # of the layer that is left out
    adjacent = keys.flag("indexer_rope_interleave", True)
    indexer = deepseek32.huggingface_indexer(keys, _huggingface_layers(keys, config.layers), adjacent)
    return deepseek32.indexed(deepseek2.huggingface(keys, config), indexer)


def _huggingface_layers(keys: MetadataReader, layers: int) -> tuple[bool, ...]:
    """By a list, or a word of F and S, or one in so many layers from an offset on."""
    pattern = keys.get("index_topk_pattern")
    every = keys.integer("index_topk_freq", 1, low=0, high=1024) or 1
    offset = keys.integer("index_skip_topk_offset", 2, low=0, high=1024)
    kinds, name = keys.get("indexer_types"), "indexer_types"
    if kinds is None and pattern is not None:
        kinds, name = pattern, "index_topk_pattern"
    if kinds is None:
        return tuple(max(layer - offset + 1, 0) % every == 0 for layer in range(layers))
    letters = {"F": True, "S": False} if name == "index_topk_pattern" else {}
    listed = list(kinds) if isinstance(kinds, str) and letters else kinds
    known = KINDS | letters
    return tuple(known[kind] for kind in keys.words(name, layers, known, listed))


def gguf(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    layers = tuple(config.trained_context < LONG_CONTEXT or layer < 2 or (layer - 2) % 4 == 0 for layer in range(config.layers))
    if "attention.indexer.types" in keys:
        layers = tuple(keys.flags("attention.indexer.types", config.layers))
    return deepseek32.indexed(deepseek2.gguf(keys, config), deepseek32.gguf_indexer(keys, layers, True))


ARCHITECTURE = replace(
    deepseek32.ARCHITECTURE,
    name="glm-dsa",
    models="GLM-5, 5.1 and 5.2",
    also=("glm_moe_dsa",),
    uncounted=("token_embd.weight", "output.weight"),
    gguf_defaults={"expert_gating_func": 2},
    defaults={
        "glm_moe_dsa": deepseek2.V3
        | deepseek32.INDEXER
        | {
            "index_n_heads": 32,
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 202752,
            "vocab_size": 154880,
            "n_group": 1,
            "topk_group": 1,
            "q_lora_rank": 2048,
            "qk_nope_head_dim": 192,
            "v_head_dim": 256,
        }
    },
    huggingface=huggingface,
    gguf=gguf,
)
