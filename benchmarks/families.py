"""Geometries of newer architectures, whose files `benchmarks.models` makes: what a file of each says, and its tensors.

Widths are those of the published models. What is cut is the number of layers and of experts; the vocabulary is SmolLM2's.
Sources: the config.json of each model and llama.cpp's loader (src/models). As in a Q4_K file that llama.cpp makes, an embedding
that is the output is Q6_K, and a matrix whose rows are no multiple of 256 is Q5_0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gguf import GGMLQuantizationType

Tensors = dict[str, tuple[tuple[int, ...], GGMLQuantizationType]]
Q4_K, Q5_0, Q6_K, F32 = (getattr(GGMLQuantizationType, name) for name in ("Q4_K", "Q5_0", "Q6_K", "F32"))


def _of_layer(index: int, vectors: dict[str, int], matrices: dict[str, tuple[int, ...]]) -> Tensors:
    """Weights of a layer; matrices whose rows fit no block of 256 are Q5_0."""
    found: Tensors = {f"blk.{index}.{name}.weight": ((width,), F32) for name, width in vectors.items()}
    kinds = {name: Q4_K if shape[-1] % 256 == 0 else Q5_0 for name, shape in matrices.items()}
    return found | {f"blk.{index}.{name}.weight": (shape, kinds[name]) for name, shape in matrices.items()}


def _gated(width: int, inner: int, suffix: str = "", experts: int = 0) -> dict[str, tuple[int, ...]]:
    stack = (experts,) if experts else ()
    up = (*stack, inner, width)
    return {f"ffn_gate{suffix}": up, f"ffn_up{suffix}": up, f"ffn_down{suffix}": (*stack, width, inner)}


def _experts(index: int, width: int, inner: int, experts: int, shared: bool) -> Tensors:
    """A sigmoid router with a bias, its experts, and one that is always active."""
    found: Tensors = {
        f"blk.{index}.ffn_gate_inp.weight": ((experts, width), F32),
        f"blk.{index}.exp_probs_b.bias": ((experts,), F32),
    }
    always = _gated(width, inner, "_shexp") if shared else {}
    return found | _of_layer(index, {}, _gated(width, inner, "_exps", experts) | always)


@dataclass(frozen=True)
class FalconH1:
    """Attention and Mamba-2 in every layer; the defaults are those of Falcon-H1-0.5B."""

    architecture: str = "falcon-h1"
    blocks: int = 36
    width: int = 1024
    heads: int = 8
    key_heads: int = 2
    head_width: int = 64
    feed_forward: int = 2048
    mamba_heads: int = 24
    mamba_width: int = 64  # of a head
    state: int = 128
    context: int = 16384

    def keys(self) -> dict[str, Any]:
        return {
            "context_length": self.context, "embedding_length": self.width, "feed_forward_length": self.feed_forward,
            "attention.head_count": self.heads, "attention.head_count_kv": self.key_heads,
            "attention.key_length": self.head_width, "attention.value_length": self.head_width,
            "attention.layer_norm_rms_epsilon": 1e-5, "rope.dimension_count": self.head_width, "rope.freq_base": 1e11,
            "ssm.conv_kernel": 4, "ssm.inner_size": self.mamba_heads * self.mamba_width, "ssm.state_size": self.state,
            "ssm.time_step_rank": self.mamba_heads, "ssm.group_count": 1,
        }  # fmt: skip

    def tensors(self, vocab_size: int) -> Tensors:
        width, queries, keys = self.width, self.heads * self.head_width, self.key_heads * self.head_width
        inner = self.mamba_heads * self.mamba_width
        mixed = inner + 2 * self.state
        matrices = {"attn_q": (queries, width), "attn_k": (keys, width), "attn_v": (keys, width), "attn_output": (width, queries),
                    "ssm_in": (inner + mixed + self.mamba_heads, width), "ssm_out": (width, inner)}  # fmt: skip
        found: Tensors = {"token_embd.weight": ((vocab_size, width), Q4_K)}
        for index in range(self.blocks):
            name = f"blk.{index}"
            found |= _of_layer(index, {"attn_norm": width}, matrices | _gated(width, self.feed_forward))
            found |= {
                f"{name}.ffn_norm": ((width,), F32), f"{name}.ssm_conv1d.weight": ((mixed, 4), F32),
                f"{name}.ssm_conv1d.bias": ((mixed,), F32), f"{name}.ssm_dt.bias": ((self.mamba_heads,), F32),
                f"{name}.ssm_a": ((self.mamba_heads, 1), F32), f"{name}.ssm_d": ((self.mamba_heads, 1), F32),
            }  # fmt: skip
        return found | {"output_norm.weight": ((width,), F32), "output.weight": ((vocab_size, width), Q6_K)}


@dataclass(frozen=True)
class KimiLinear:
    """Kimi delta attention, latent attention in every fourth layer; the defaults are Kimi-Linear-48B-A3B's but for 4 layers and
    24 experts in place of 27 and 256."""

    architecture: str = "kimi-linear"
    blocks: int = 4
    width: int = 2304
    heads: int = 32
    head_width: int = 128  # of all but the 64 positions that would have RoPE
    rank: int = 512
    feed_forward: int = 9216
    experts: int = 24
    active: int = 8
    expert_width: int = 1024
    context: int = 32768
    positional: int = 64

    def keys(self) -> dict[str, Any]:
        return {
            "context_length": self.context, "embedding_length": self.width, "feed_forward_length": self.feed_forward,
            "attention.head_count": self.heads, "attention.head_count_kv": [int(layer % 4 == 3) for layer in range(self.blocks)],
            "attention.layer_norm_rms_epsilon": 1e-5, "attention.kv_lora_rank": self.rank,
            "attention.key_length": self.rank + self.positional, "attention.value_length": self.rank,
            "attention.key_length_mla": self.head_width + self.positional, "attention.value_length_mla": self.head_width,
            "rope.dimension_count": self.positional, "kda.head_dim": self.head_width, "ssm.conv_kernel": 4,
            "expert_count": self.experts, "expert_used_count": self.active, "expert_feed_forward_length": self.expert_width,
            "expert_shared_count": 1, "expert_weights_scale": 2.446, "expert_gating_func": 2, "leading_dense_block_count": 1,
        }  # fmt: skip

    def tensors(self, vocab_size: int) -> Tensors:
        width = self.width
        found: Tensors = {"token_embd.weight": ((vocab_size, width), Q4_K)}
        for index in range(self.blocks):
            found |= _of_layer(index, {"attn_norm": width, "ffn_norm": width}, {})
            found |= self._latent(index) if index % 4 == 3 else self._delta(index)
            if index:
                found |= _experts(index, width, self.expert_width, self.experts, shared=True)
            else:
                found |= _of_layer(index, {}, _gated(width, self.feed_forward))
        return found | {"output_norm.weight": ((width,), F32), "output.weight": ((vocab_size, width), Q6_K)}

    def _delta(self, index: int) -> Tensors:
        width, c, name = self.width, self.head_width, f"blk.{index}"
        whole = self.heads * c
        matrices = {f"attn_{part}": (whole, width) for part in ("q", "k", "v")} | {"attn_output": (width, whole)}
        for part in ("f", "g"):
            matrices |= {f"ssm_{part}_a": (c, width), f"ssm_{part}_b": (whole, c)}
        found = _of_layer(index, {"ssm_norm": c}, matrices | {"ssm_beta": (self.heads, width)})
        found |= {f"{name}.ssm_conv1d_{part}.weight": ((whole, 1, 4), F32) for part in ("q", "k", "v")}
        return found | {f"{name}.ssm_a": ((self.heads, 1), F32), f"{name}.ssm_dt.bias": ((whole,), F32)}

    def _latent(self, index: int) -> Tensors:
        width, heads, c, rank = self.width, self.heads, self.head_width, self.rank
        matrices: dict[str, tuple[int, ...]] = {
            "attn_q": (heads * (c + self.positional), width), "attn_kv_a_mqa": (rank + self.positional, width),
            "attn_k_b": (heads, rank, c), "attn_v_b": (heads, c, rank), "attn_output": (width, heads * c),
        }  # fmt: skip
        return _of_layer(index, {"attn_kv_a_norm": rank}, matrices)


@dataclass(frozen=True)
class Gemma4:
    """Heads of two sizes, embeddings for each layer, a shared KV cache; the defaults are Gemma 4 E2B's but for 15 layers, of which
    10 share, in place of 35 and 20."""

    architecture: str = "gemma4"
    blocks: int = 15
    shared: int = 10  # what is left ends with a layer that sees everything, from which llama.cpp counts
    width: int = 1536
    heads: int = 8
    key_heads: int = 1
    head_width: int = 512
    local_head_width: int = 256
    feed_forward: int = 6144  # twice that in layers that share
    per_layer: int = 256
    window: int = 512
    period: int = 5  # the last one of so many layers sees everything
    context: int = 32768

    def keys(self) -> dict[str, Any]:
        local = self._local()
        return {
            "context_length": self.context, "embedding_length": self.width, "feed_forward_length": self._feed_forwards(),
            "attention.head_count": self.heads, "attention.head_count_kv": [self.key_heads] * self.blocks,
            "attention.key_length": self.head_width, "attention.value_length": self.head_width,
            "attention.key_length_swa": self.local_head_width, "attention.value_length_swa": self.local_head_width,
            "attention.sliding_window": self.window, "attention.sliding_window_pattern": local,
            "attention.shared_kv_layers": self.shared, "attention.layer_norm_rms_epsilon": 1e-6,
            "embedding_length_per_layer_input": self.per_layer, "final_logit_softcapping": 30.0,
            "rope.dimension_count": self.head_width, "rope.dimension_count_swa": self.local_head_width,
            "rope.freq_base": 1e6, "rope.freq_base_swa": 1e4,
        }  # fmt: skip

    def _local(self) -> list[bool]:
        return [layer % self.period != self.period - 1 for layer in range(self.blocks)]

    def _feed_forwards(self) -> list[int]:
        return [self.feed_forward * (1 + (layer >= self.blocks - self.shared)) for layer in range(self.blocks)]

    def tensors(self, vocab_size: int) -> Tensors:
        width, whole = self.width, self.blocks * self.per_layer
        found: Tensors = {
            "token_embd.weight": ((vocab_size, width), Q6_K), "per_layer_token_embd.weight": ((vocab_size, whole), Q4_K),
            "per_layer_model_proj.weight": ((whole, width), Q4_K), "per_layer_proj_norm.weight": ((self.per_layer,), F32),
            "rope_freqs.weight": ((self.head_width // 2,), F32),
        }  # fmt: skip
        norms = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm", "post_norm")
        for index, (local, inner) in enumerate(zip(self._local(), self._feed_forwards(), strict=True)):
            c = self.local_head_width if local else self.head_width
            vectors = dict.fromkeys(norms, width) | {"layer_output_scale": 1, "attn_q_norm": c}
            matrices = _gated(width, inner) | {"attn_q": (self.heads * c, width), "attn_output": (width, self.heads * c)}
            matrices |= {"inp_gate": (self.per_layer, width), "proj": (width, self.per_layer)}
            if index < self.blocks - self.shared:
                vectors["attn_k_norm"] = c
                matrices |= {"attn_k": (self.key_heads * c, width), "attn_v": (self.key_heads * c, width)}
            found |= _of_layer(index, vectors, matrices)
        return found | {"output_norm.weight": ((width,), F32)}


@dataclass(frozen=True)
class Lfm2Moe:
    """Gated short convolutions, attention in some layers; the defaults are LFM2-8B-A1B's but for 8 layers and 16 experts
    in place of 24 and 32."""

    architecture: str = "lfm2moe"
    blocks: int = 8
    attending: tuple[int, ...] = (2, 6)
    dense: int = 2
    width: int = 2048
    heads: int = 32
    key_heads: int = 8
    feed_forward: int = 7168
    experts: int = 16
    active: int = 4
    expert_width: int = 1792
    context: int = 32768

    def keys(self) -> dict[str, Any]:
        return {
            "context_length": self.context, "embedding_length": self.width, "feed_forward_length": self.feed_forward,
            "attention.head_count": self.heads, "attention.layer_norm_rms_epsilon": 1e-5, "rope.freq_base": 1e6,
            "attention.head_count_kv": [self.key_heads * (layer in self.attending) for layer in range(self.blocks)],
            "shortconv.l_cache": 3, "expert_count": self.experts, "expert_used_count": self.active, "expert_gating_func": 2,
            "expert_feed_forward_length": self.expert_width, "leading_dense_block_count": self.dense,
        }  # fmt: skip

    def tensors(self, vocab_size: int) -> Tensors:
        width, c = self.width, self.width // self.heads
        found: Tensors = {"token_embd.weight": ((vocab_size, width), Q6_K)}
        for index in range(self.blocks):
            vectors = {"attn_norm": width, "ffn_norm": width}
            if index in self.attending:
                keys = (self.key_heads * c, width)
                vectors |= {"attn_q_norm": c, "attn_k_norm": c}
                matrices = {"attn_q": (width, width), "attn_k": keys, "attn_v": keys, "attn_output": (width, width)}
            else:
                found[f"blk.{index}.shortconv.conv.weight"] = (width, 3), F32
                matrices = {"shortconv.in_proj": (3 * width, width), "shortconv.out_proj": (width, width)}
            if index < self.dense:
                matrices |= _gated(width, self.feed_forward)
            else:
                found |= _experts(index, width, self.expert_width, self.experts, shared=False)
            found |= _of_layer(index, vectors, matrices)
        return found | {"token_embd_norm.weight": ((width,), F32)}
