"""Qwen 2 and 2.5, distilled R1: Llama blocks with a bias on q, k and v. Reference: transformers qwen2."""

from lacewing.models.architecture import Architecture

DEFAULTS = {
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "vocab_size": 151936,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
}

ARCHITECTURE = Architecture(
    name="qwen2",
    models="Qwen 2 and 2.5, Qwen2.5-Coder, QwQ, distilled R1; the text of Qwen 2-VL and 2.5-VL",
    also=(
        "qwen2vl",
        "qwen25vl",
    ),  # of text, the second by Ollama: where positions are equal in all sections, mrope is the usual rotation
    biases=frozenset({"attn_q", "attn_k", "attn_v"}),
    defaults={"qwen2": DEFAULTS},
)
