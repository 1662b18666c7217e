"""DeepSeek V3.2: V3 whose attention sees the positions that a lightning indexer chooses in every layer.

References: transformers deepseek_v32; llama.cpp for what a GGUF file says.
"""

from dataclasses import replace

from lacewing.models.architectures import deepseek2
from lacewing.models.config import IndexerConfig, ModelConfig
from lacewing.models.readers.metadata import MetadataReader

INDEXER_NAMES = {
    "self_attn.indexer.wq_b": "indexer.attn_q_b",
    "self_attn.indexer.wk": "indexer.attn_k",
    "self_attn.indexer.k_norm": "indexer.k_norm",
    "self_attn.indexer.weights_proj": "indexer.proj",
}
INDEXER = {"index_n_heads": 64, "index_head_dim": 128, "index_topk": 2048, "layer_kinds": ("indexed_attention",)}


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    adjacent = keys.flag("indexer_rope_interleave")  # in halves, unlike the queries of attention
    return indexed(deepseek2.huggingface(keys, config), huggingface_indexer(keys, (True,) * config.layers, adjacent))


def huggingface_indexer(keys: MetadataReader, layers: tuple[bool, ...], adjacent: bool) -> IndexerConfig:
    heads, width = keys.integer("index_n_heads", high=2**16), keys.integer("index_head_dim", high=2**16)
    return IndexerConfig(heads, width, keys.integer("index_topk"), layers, adjacent)


def gguf(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    return indexed(deepseek2.gguf(keys, config), gguf_indexer(keys, (True,) * config.layers, False))


def gguf_indexer(keys: MetadataReader, layers: tuple[bool, ...], adjacent: bool) -> IndexerConfig:
    heads, width = (keys.integer(f"attention.indexer.{name}", high=2**16) for name in ("head_count", "key_length"))
    return IndexerConfig(heads, width, keys.integer("attention.indexer.top_k"), layers, adjacent)


def indexed(config: ModelConfig, indexer: IndexerConfig) -> ModelConfig:
    return replace(config, latent=replace(deepseek2.latent_of(config), indexer=indexer))


ARCHITECTURE = replace(
    deepseek2.ARCHITECTURE,
    name="deepseek32",
    also=("deepseek_v32",),
    models="DeepSeek V3.2 and V3.2-Exp",
    names={**deepseek2.ARCHITECTURE.names, **INDEXER_NAMES},
    defaults={"deepseek_v32": deepseek2.V3 | {"max_position_embeddings": 163840} | INDEXER},
    huggingface=huggingface,
    gguf=gguf,
)
