"""What the architectures lack that do not run here: for messages, by the names of GGUF files and of config.json.

The list of llama.cpp (gguf-py/gguf/constants.py) is covered, and model types of Hugging Face that people ask for. A name may stand
in several rows. Who adds an architecture takes its names out; a test holds the table to the rows of `architectures/`.
"""

from __future__ import annotations

# a block, as a message names it after "needs": the architectures that need it
BLOCKS: dict[str, str] = {
    "gated delta nets whose gate is a sigmoid": "qwen4exp qwen4_exp qwen4_exp_text",
    "a delta rule whose beta reaches 2": "olmo_hybrid",
    "Kimi delta attention with a lower bound of its decays": "kimi-k3 kimi_k3 bailingmoe3 glm5-next glm5_next",
    "attention over the residuals of earlier layers": "kimi-k3 kimi_k3",
    "the SiTU activation": "kimi-k3 kimi_k3",
    "Mamba layers (selective state spaces)": "mamba falcon_mamba jamba plamo2",
    "the time mixing of RWKV-6": "rwkv6 rwkv6qwen2 rwkv",
    "the time mixing of RWKV-7": "rwkv7 arwkv7",
    "lightning (linear) attention": "minimax-01 minimax minimax_text_01 bailing_hybrid",
    "an indexer of another kind than that of DeepSeek V3.2":
        "deepseek4 deepseek_v4 glm5-next glm5_next qwen4exp qwen4_exp qwen4_exp_text hy_v4 dots3note dots3_note minimax-m3 "
        "minimax_m3_vl mistral_large4",
    "hyper-connections (several residual streams)":
        "deepseek4 deepseek_v4 qwen4exp qwen4_exp qwen4_exp_text hy_v4 glm5-next glm5_next",
    "compressed KV cache layers": "deepseek4 deepseek_v4",
    "experts chosen by token ids": "deepseek4 deepseek_v4",
    "lookup tables of n-grams that are read by rows": "qwen4exp qwen4_exp qwen4_exp_text",
    "experts that read what attention reads": "arctic",
    "parallel attention and feed-forward with a norm each": "falcon gpt_neox gptneox",
    "norms of heads with biases": "persimmon",
    "learned position embeddings": "gpt2 starcoder gpt_bigcode",
    "ALiBi positions": "baichuan bloom mpt refact jais",
    "adapters chosen by tokens": "graniteswitch",
    "head counts or widths of each layer by itself": "deci openelm spark2_5",
    "a SwiGLU that is clamped before its activation": "maple glm5-next glm5_next hy_v4 deepseek4 deepseek_v4",
    "a gate of its own weight on every value of attention": "afmoe muse-glimmer muse_glimmer kimi-k3 kimi_k3 hy_v4",
    "gates of attention by softplus": "laguna",
    "K and V heads of different widths": "mimo2 mimo_v2_flash",
    "experts in groups that share a small expert": "grovemoe",
    "a router that reads what attention reads": "smallthinker",
    "norms inside attention and feed-forward": "bitnet",
    "soft-caps of a router": "grok",
    "layers that run several times": "nanbeige hrm_text",
    "a block that several layers share, each with adapters": "zamba2",
    "RoPE of several axes": "glm4v glm4v_moe paddleocr paddleocr_vl hunyuan_vl",
    "the embedding added again behind every layer": "talkie",
    "a clamp on q, k and v": "dbrx olmo",
    "decoding by diffusion": "dream llada llada-moe rnd1 diffusion_gemma",
    "attention without a causal mask (an encoder)":
        "bert modern-bert modernbert nomic-bert nomic_bert nomic-bert-moe neo-bert jina-bert-v2 jina-bert-v3 eurobert "
        "gemma-embedding llama-embed t5encoder roberta xlm-roberta",
    "an encoder beside the decoder": "t5 mt5 t5gemma bart marian whisper",
    "the hidden states of another model (it is a draft of one)":
        "eagle3 dflash gemma4-assistant gemma4_assistant muse_glimmer_assistant",
    "images as input": "clip chameleon cogvlm deepseek2-ocr",
    "sound as output": "wavtokenizer-dec wavtokenizer qwen3tts pockettts pocket_tts",
    "only a row of its own (its blocks are all here)":
        "qwen qwen3vl qwen3_vl_text qwen3vlmoe qwen3_vl_moe_text internlm2 xverse exaone plamo3 bailingmoe hy_v3 "
        "maincoder mellum solar_open bamba minicpm minicpm3 granite_swa gptj codeshell orion nemotron jais2 cohere2moe "
        "cohere2_moe plamo arcee pangu-embedded plm",
}  # fmt: skip

# Those that docs/next-architectures.md describes.
DESCRIBED = frozenset(("deepseek4", "deepseek_v4", "qwen4exp", "qwen4_exp", "qwen4_exp_text"))


def missing_blocks(name: str) -> list[str]:
    """What an architecture needs that is not here; empty for one that nobody has listed."""
    return [block for block, names in BLOCKS.items() if name in names.split()]


def listed() -> set[str]:
    """All names of the table."""
    return {name for names in BLOCKS.values() for name in names.split()}
