"""What a model is, the same whatever its file format; and the bounds that a sane one keeps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lacewing.errors import UnsupportedModelError
from lacewing.models.rope import RopeConfig

ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh", "gelu_tanh": "gelu_tanh"}


@dataclass(frozen=True)
class HeadSizes:
    """The heads of a layer of attention: how many queries and keys have, and their width."""

    heads: int  # H
    key_heads: int  # K
    width: int  # C


@dataclass(frozen=True)
class PerLayerConfig:
    """Embeddings of each token for each layer: a table of `rows` rows of layers * width values, read by rows from its file."""

    width: int
    rows: int
    other: int = 0  # the row of what has none: padding


@dataclass(frozen=True)
class AltUpConfig:
    """Several residual streams; a layer computes with one of them: `AltUpPredict` of `program/stream_ops.py`."""

    streams: int
    active: int
    scaled: bool = True  # what is corrected is scaled before it meets the embeddings of the layer
    rank: int = 64  # of the learned residual layer (LAuReL)


@dataclass(frozen=True)
class MixtureConfig:
    """Layers whose feed-forward is a mixture of experts. How they are chosen: `Route` of `program/ops.py`."""

    experts: int  # E
    active: int  # A
    width: int  # F of an expert
    layers: tuple[bool, ...]  # which layers are mixtures
    shared_width: int = 0  # F of the shared experts together; 0: none
    latent: int = 0  # values of the space that experts work in; 0: that of the model
    fused_shared: bool = False  # gate and up of the shared experts are one weight
    shared_gate: bool = False  # the shared experts count as much as the sigmoid of one more product says
    gating: str = "softmax"
    jitter: float = 0.0  # of the gating "sparsemixer"
    bias: bool = False
    groups: int = 1
    groups_used: int = 1
    group_best: int = 2
    renormalise: bool = False
    scale: float = 1.0
    expert_biases: bool = False
    expert_scales: bool = False  # each expert has a factor on its weight
    weight_on_input: bool = False
    clamp: tuple[float, float] | None = None  # alpha and limit of the activation of experts
    limits: tuple[float | None, ...] = ()  # of each layer, behind the activation of experts; empty: none
    transposed: bool = False  # experts stand as (E, in, out), with gate and up in one weight
    interleaved: bool = False  # gate and up are rows by turns of one weight

    @property
    def one_stack(self) -> bool:
        """Whether gate and up of the experts stay in one weight."""
        return self.transposed or self.interleaved


@dataclass(frozen=True)
class IndexerConfig:
    """The lightning indexer of sparse attention: `SelectKeys` of `program/ops.py`."""

    heads: int
    width: int  # of its heads; the first values of each are rotated
    top_k: int  # positions that attention sees
    layers: tuple[bool, ...]  # which layers have one; the others see what the last one before them chose
    adjacent_rope: bool = False


@dataclass(frozen=True)
class LatentConfig:
    """Attention whose keys and values are made of one small vector a position (multi-head latent attention)."""

    q_rank: int | None  # None: queries come directly from x
    rank: int  # of keys and values
    nope: int  # values of a head without rotation
    rope: int  # values of a head with rotation, shared by all heads on the side of keys
    value: int  # values of a head that attention gives
    eps: float  # of the norms of both latent vectors
    transposed_keys: bool = False  # attn_k_b is (H, nope, rank), else (H, rank, nope)
    indexer: IndexerConfig | None = None  # None: attention sees every position


@dataclass(frozen=True)
class ShortConvolutionConfig:
    """Layers that mix tokens by a gated causal convolution: `ShortConvolution` of `program/ops.py`."""

    kernel: int  # positions that a token sees, itself included
    layers: tuple[bool, ...]  # which layers have it in place of attention
    biases: bool = False


@dataclass(frozen=True)
class DeltaConfig:
    """Layers of linear attention, with a short convolution before it: `GatedDelta` of `program/ops.py`."""

    layers: tuple[bool, ...]  # which layers have it in place of attention
    kernel: int  # positions that the convolution sees
    heads: int  # of values
    key_heads: int
    key_width: int  # of a head
    value_width: int
    tiled: bool = False  # head h reads key head h % key_heads, else h // (heads / key_heads)
    log_rate: bool = False  # rates of decay are stored as logarithms of their negatives
    joint_gates: bool = False  # beta and decay stand in one weight, key head by key head
    gate_rank: int = 0  # of the small vectors behind decay and gate, in Kimi delta attention, which has a decay for each row


@dataclass(frozen=True)
class MambaConfig:
    """Layers that mix tokens by Mamba-2: `SelectiveScan` of `program/ops.py`, on what a short convolution gives."""

    kinds: tuple[str, ...]  # of each layer: "mamba", "attention" or "both", and where these stand alone "mlp" and "moe"
    heads: int
    head_width: int  # P
    states: int  # N
    groups: int  # of heads that share what goes into the state and what reads it
    kernel: int  # positions of the convolution
    limits: tuple[float, float] = (0.0, math.inf)  # of time steps
    log_decay: bool = False  # the weight is the logarithm
    normed: bool = True  # each group's output, after its gate
    gate_last: bool = False  # the gate comes behind that norm
    factors: tuple[float, ...] = ()  # on what is projected: the gate, x, b, c and the time steps; empty: none

    @property
    def width(self) -> int:
        return self.heads * self.head_width

    @property
    def convolved(self) -> int:
        """Columns that the convolution reads."""
        return self.width + 2 * self.groups * self.states


@dataclass(frozen=True)
class MultipliersConfig:
    """Factors on what the parts of a layer give (muP), where they are not in its weights."""

    attention: float = 1.0
    mamba: float = 1.0
    gate: float = 1.0  # of feed-forward, before the activation
    feed_forward: float = 1.0


@dataclass(frozen=True)
class AttentionTemperatureConfig:
    """Attention temperature scaling: queries are scaled by position, `ScaleByPosition` of `program/ops.py`."""

    beta: float
    length: int
    offset: int = 0
    rotated_layers: bool = True  # else only NoPE layers have it


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and switches of a decoder. D, H, K, C, F, V, E, A are the axis letters of `program/ops.py`."""

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
    residual_scale: float = 1.0  # of what attention and feed-forward add to the residual stream
    logits_scale: float = 1.0
    norm_offset: float = 0.0  # added to every norm weight
    layer_norm: bool = False  # norms subtract the mean
    norm_biases: bool = False  # those of queries and keys apart
    activation: str = "silu"
    adjacent_rope: bool = False
    qk_norm: bool = False  # on each query and key head, before RoPE
    own_qk_norm: bool = False  # every head has weights of its own for `qk_norm`
    whole_qk_norm: bool = False  # on all query heads together, and on all key heads
    late_qk_norm: bool = False  # `qk_norm` comes after RoPE
    qk_norm_after_rope: bool = False  # without weights, on each head; not in NoPE layers
    pre_norms: bool = True  # on what attention and feed-forward get
    post_norms: bool = False  # on what attention and feed-forward give, before it is added
    parallel: bool = False  # attention and feed-forward get the same, from one norm
    gated: bool = True  # feed-forward has a gate
    xielu: tuple[tuple[float, ...], ...] = ()  # of each layer, where the activation is xIELU: `Activation` of `program/ops.py`
    fused_qkv: bool = False
    fused_gate_up: bool = False
    tied_output: bool = False
    output_bias: bool = False
    biases: frozenset[str] = frozenset()  # linear layers of a block that have one, such as "attn_q"
    feed_forward_norm: str = "ffn_norm"  # the name of the norm before feed-forward
    sinks: bool = False
    nope_layers: frozenset[int] = frozenset()  # layers without rotation
    chunks: tuple[int | None, ...] = ()  # one a layer, as `windows`; empty: none
    attention_temperature: AttentionTemperatureConfig | None = None
    latent: LatentConfig | None = None
    mixture: MixtureConfig | None = None
    short_convolution: ShortConvolutionConfig | None = None
    delta: DeltaConfig | None = None
    fused_delta: bool = False  # q, k, v and gates of delta layers stand in one weight, key head by key head
    attention_gate: bool = False  # attn_q makes a gate for each head behind its query
    head_gates: bool = False  # attn_gate makes one number for each head, which gates what it gives
    mamba: MambaConfig | None = None
    multipliers: MultipliersConfig = MultipliersConfig()
    scale_block: tuple[int, int] | None = None  # rows and columns that share a factor, where weights are stored so; stacks.BY_SHAPE
    local_heads: HeadSizes | None = None  # of layers with a window, where they differ
    feed_forwards: tuple[int, ...] = ()  # F of each layer, where they differ
    limits: tuple[float | None, ...] = ()  # of each layer, behind the activation of feed-forward and shared experts; empty: none
    cutoffs: tuple[float | None, ...] = ()  # of each layer, `GaussianTopK` of the gate of feed-forward; empty: none
    shared_kv: int = 0  # so many last layers read the KV cache of the last layer of their kind before them
    keys_are_values: bool = False  # in layers that see everything: values are the keys before their norm
    layer_scale: bool = False  # a factor on what leaves a layer
    per_layer: PerLayerConfig | None = None
    altup: AltUpConfig | None = None
    predicting_layers: int = 0  # behind the others in the checkpoint, for multi-token prediction; left out

    def heads_of(self, layer: int) -> HeadSizes:
        """Of a layer."""
        if self.local_heads is not None and self.windows[layer] is not None:
            return self.local_heads
        return HeadSizes(self.heads, self.key_heads, self.head_width)

    def feed_forward_of(self, layer: int) -> int:
        """F of a layer."""
        return self.feed_forwards[layer] if self.feed_forwards else self.feed_forward

    def kv_layer(self, layer: int) -> int:
        """The layer whose KV cache a layer reads."""
        own = self.layers - self.shared_kv
        if layer < own:
            return layer
        local = self.windows[layer] is not None
        return max(each for each in range(own) if (self.windows[each] is not None) == local)


def check_config(config: ModelConfig, where: str) -> None:
    """Refuse sizes that contradict each other. Raises UnsupportedModelError."""

    def require(holds: bool, problem: str) -> None:
        if not holds:
            raise UnsupportedModelError(f"{where}: {problem}")

    whole = HeadSizes(config.heads, config.key_heads, config.head_width)
    for rope, sizes in ((config.rope, whole), (config.local_rope, config.local_heads or whole)):
        require(sizes.heads % sizes.key_heads == 0, f"{sizes.heads} heads do not divide over {sizes.key_heads} key heads")
        fits = 2 <= rope.width <= sizes.width and rope.width % 2 == 0
        require(fits, f"{rope.width} rotated values in heads of {sizes.width}; it must be even and fit")
        require(rope.kind != "dynamic" or rope.width > 2, "dynamic rope scaling needs more than 2 rotated values")
        unclear = rope.kind in ("yarn", "longrope") and (rope.original_context < 2 or rope.base <= 1)
        require(not unclear, f"{rope.kind} rope scaling with original context {rope.original_context} and base {rope.base:g}")
        for divisors in (rope.divisors, rope.short_divisors, rope.long_divisors):
            require(len(divisors) in (0, rope.width // 2), f"{len(divisors)} rope factors for {rope.width} rotated values")
    if config.latent is not None and config.latent.indexer is not None:
        indexer = config.latent.indexer
        require(config.latent.q_rank is not None, "an indexer needs the small vector that queries are made of (q_lora_rank)")
        fits = config.rope.width <= indexer.width
        require(fits, f"{config.rope.width} rotated values in heads of {indexer.width} of the indexer")
        require(indexer.layers[0], "the first layer has no indexer of its own, and none before it")
    require(len(config.windows) == config.layers, f"{len(config.windows)} windows for {config.layers} layers")
    if config.mamba is not None:
        heads, groups = config.mamba.heads, config.mamba.groups
        require(heads % groups == 0, f"{heads} heads of Mamba do not divide over {groups} groups")
    if config.altup is not None:
        require(config.altup.streams >= 2, f"{config.altup.streams} residual stream; alternating updates need two")
        require(config.altup.active < config.altup.streams, f"stream {config.altup.active} of {config.altup.streams} is active")
    if config.shared_kv:
        own = config.layers - config.shared_kv
        require(own >= 1, f"all of {config.layers} layers share a KV cache; the first must have one of their own")
        kinds = {window is not None for window in config.windows[:own]}
        found = kinds.issuperset(window is not None for window in config.windows)
        require(found, f"none of the first {own} layers has a KV cache for the other {config.shared_kv} of its kind")
    if config.mixture is not None:
        m = config.mixture
        require(1 <= m.active <= m.experts, f"{m.active} active of {m.experts} experts")
        require(m.experts % m.groups == 0, f"{m.experts} experts do not divide over {m.groups} groups")
        require(m.groups_used <= m.groups, f"{m.groups_used} of {m.groups} groups of experts are used")
        size = m.experts // m.groups
        require(m.groups == 1 or m.group_best <= size, f"groups of {size} expert are too small to be compared")
        require(m.active <= m.groups_used * size, f"{m.active} active experts do not fit in {m.groups_used} groups of {size}")
