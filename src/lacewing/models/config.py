"""What a model is, the same whatever its file format; and the bounds that a sane one keeps."""

from __future__ import annotations

from dataclasses import dataclass

from lacewing.errors import UnsupportedModelError
from lacewing.models.rope import RopeConfig

ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh", "gelu_tanh": "gelu_tanh"}


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and switches of a dense decoder. D, H, K, C, F, V are the axis letters of `program/ops.py`."""

    architecture: str
    layers: int
    width: int  # D
    heads: int  # H
    key_heads: int  # K
    head_width: int  # C
    feed_forward: int  # F
    vocab_size: int  # V
    trained_context: int
    eps: float
    rope: RopeConfig
    local_rope: RopeConfig  # of layers with a window
    windows: tuple[int | None, ...]  # one a layer
    attention_scale: float
    attention_softcap: float | None = None
    final_softcap: float | None = None
    embedding_scale: float = 1.0
    norm_offset: float = 0.0  # added to every norm weight
    activation: str = "silu"
    adjacent_rope: bool = False
    qk_norm: bool = False  # on each query and key head, before the rotation
    post_norms: bool = False  # on what attention and feed-forward give, before it is added
    fused_qkv: bool = False
    fused_gate_up: bool = False
    tied_output: bool = False
    biases: frozenset[str] = frozenset()  # linear layers of a block that have one, such as "attn_q"


def check_config(config: ModelConfig, where: str) -> None:
    """Refuse sizes that contradict each other. Raises UnsupportedModelError."""

    def require(holds: bool, problem: str) -> None:
        if not holds:
            raise UnsupportedModelError(f"{where}: {problem}")

    require(config.heads % config.key_heads == 0, f"{config.heads} heads do not divide over {config.key_heads} key heads")
    for rope in (config.rope, config.local_rope):
        fits = 2 <= rope.width <= config.head_width and rope.width % 2 == 0
        require(fits, f"{rope.width} rotated values in heads of {config.head_width}; it must be even and fit")
        require(rope.kind != "dynamic" or rope.width > 2, "dynamic rope scaling needs more than 2 rotated values")
        unclear = rope.kind in ("yarn", "longrope") and (rope.original_context < 2 or rope.base <= 1)
        require(not unclear, f"{rope.kind} rope scaling with original context {rope.original_context} and base {rope.base:g}")
        for divisors in (rope.divisors, rope.short_divisors, rope.long_divisors):
            require(len(divisors) in (0, rope.width // 2), f"{len(divisors)} rope factors for {rope.width} rotated values")
    require(len(config.windows) == config.layers, f"{len(config.windows)} windows for {config.layers} layers")
