"""From a config to the program of one step: the blocks that decoders share. Others: `latent.py`, `mixture.py`."""

from __future__ import annotations

from lacewing.models.config import ModelConfig
from lacewing.models.latent import latent_attention
from lacewing.models.mixture import mixture_block
from lacewing.models.rope import rope_spec
from lacewing.program.ops import (
    AddNorm,
    Attention,
    Buffer,
    Embed,
    GatedActivation,
    Linear,
    Logits,
    Norm,
    Op,
    Rope,
    ScaleByPosition,
    View,
    WriteKeysValues,
)
from lacewing.program.program import Program
from lacewing.program.states import Chunk, PagedState, Part, State, Window


def build_program(config: ModelConfig, context: int) -> Program:
    """The program of one step; `context` positions at most, which some rotations depend on."""
    return Builder(config, context).build()


class Builder:
    """Collects ops and weight shapes. Buffers are shared by all layers."""

    def __init__(self, config: ModelConfig, context: int):
        self.config = config
        self.ops: list[Op] = []
        self.weights: dict[str, tuple[int, ...]] = {}
        self.rope = rope_spec(config.rope, context, config.adjacent_rope)
        self.local_rope = rope_spec(config.local_rope, context, config.adjacent_rope)
        self.q_width, self.k_width = config.heads * config.head_width, config.key_heads * config.head_width
        self.x = Buffer("x", config.width).view()  # the residual stream (T, D)
        self.normed = Buffer("normed", config.width).view()
        self.branch = Buffer("branch", config.width).view()  # what attention or feed-forward adds to x
        self.qkv = Buffer("qkv", self.q_width + 2 * self.k_width)
        self.attended = Buffer("attended", self.q_width).view()
        self.gate_up = Buffer("gate_up", 2 * config.feed_forward)

    def build(self) -> Program:
        config = self.config
        embedding = self.weight("token_embd.weight", config.vocab_size, config.width)
        self.ops.append(Embed(embedding, self.x, config.embedding_scale))
        for layer in range(config.layers):
            self.norm(self.x, f"blk.{layer}.attn_norm", self.normed, add=self.branch if layer else None)
            if config.latent is not None:
                latent_attention(self, config.latent, layer)
            else:
                self.attention(layer)
            if config.post_norms:
                self.norm(self.branch, f"blk.{layer}.post_attention_norm", self.branch)
            self.norm(self.x, f"blk.{layer}.{config.feed_forward_norm}", self.normed, add=self.branch)
            if config.mixture is not None and config.mixture.layers[layer]:
                mixture_block(self, config.mixture, layer)
            else:
                self.feed_forward(layer)
            if config.post_norms:
                self.norm(self.branch, f"blk.{layer}.post_ffw_norm", self.branch)
        self.norm(self.x, "output_norm", self.normed, add=self.branch)
        output = embedding if config.tied_output else self.weight("output.weight", config.vocab_size, config.width)
        self.ops.append(Logits(self.normed, output, softcap=config.final_softcap))
        return Program(tuple(self.ops), self.weights, self.states(), config.vocab_size)

    def states(self) -> tuple[State, ...]:
        """One a layer; layers of equal reach share their pages."""
        config, latent = self.config, self.config.latent
        if latent is not None:
            return (PagedState((Part("keys", 1, latent.rank + latent.rope),), latent=True),) * config.layers
        chunks = config.chunks or (None,) * config.layers
        parts = tuple(Part(name, config.key_heads, config.head_width) for name in ("keys", "values"))
        reaches = [
            Window(window) if window else Chunk(chunk) if chunk else None
            for window, chunk in zip(config.windows, chunks, strict=True)
        ]
        return tuple(PagedState(parts, reach) for reach in reaches)

    def weight(self, name: str, *shape: int) -> str:
        self.weights[name] = shape
        return name

    def norm(self, x: View, name: str, out: View, heads: int = 1, add: View | None = None, eps: float | None = None) -> None:
        weight = self.weight(f"{name}.weight", x.width // heads)
        eps, offset = eps or self.config.eps, self.config.norm_offset
        if add is None:
            self.ops.append(Norm(x, weight, out, eps, heads, offset))
        else:
            self.ops.append(AddNorm(x, add, weight, out, eps, offset))

    def temperature(self, q: View, layer: int) -> list[Op]:
        """What scales the queries of a layer by their positions, if anything does."""
        scaling = self.config.temperature
        if scaling is None or not (self.config.temperature_everywhere or layer in self.config.unrotated):
            return []
        return [ScaleByPosition(q, scaling.beta, scaling.length, scaling.offset)]

    def linear(self, x: View, layer: int, *outs: tuple[str, View]) -> None:
        """One or several products of the same x, each with a bias where the config says so."""
        weights = tuple(self.weight(f"blk.{layer}.{name}.weight", out.width, x.width) for name, out in outs)
        biases: tuple[str | None, ...] = ()
        if any(name in self.config.biases for name, _ in outs):
            biases = tuple(
                self.weight(f"blk.{layer}.{name}.bias", out.width) if name in self.config.biases else None for name, out in outs
            )
        self.ops.append(Linear(x, weights, tuple(out for _, out in outs), biases))

    def attention(self, layer: int) -> None:
        """normed (T, D) to branch (T, D)."""
        config = self.config
        q, k = self.qkv.view(0, self.q_width), self.qkv.view(self.q_width, self.k_width)
        v = self.qkv.view(self.q_width + self.k_width, self.k_width)
        if config.fused_qkv:
            self.linear(self.normed, layer, ("attn_qkv", self.qkv.view()))
        else:
            self.linear(self.normed, layer, ("attn_q", q), ("attn_k", k), ("attn_v", v))
        if config.qk_norm:
            self.norm(q, f"blk.{layer}.attn_q_norm", q, config.heads)
            self.norm(k, f"blk.{layer}.attn_k_norm", k, config.key_heads)
        elif config.whole_qk_norm:
            self.norm(q, f"blk.{layer}.attn_q_norm", q)
            self.norm(k, f"blk.{layer}.attn_k_norm", k)
        window, chunk = config.windows[layer], config.chunks[layer] if config.chunks else None
        if layer not in config.unrotated:
            rope = self.rope if window is None else self.local_rope
            self.ops += [Rope(q, config.heads, rope), Rope(k, config.key_heads, rope)]
            if config.turned_qk_norm:
                self.ops += [Norm(x, None, x, config.eps, heads) for x, heads in ((q, config.heads), (k, config.key_heads))]
        self.ops += [*self.temperature(q, layer), WriteKeysValues(k, v, layer)]
        sinks = self.weight(f"blk.{layer}.attn_sinks.weight", config.heads) if config.sinks else None
        scale, softcap = config.attention_scale, config.attention_softcap
        self.ops.append(Attention(q, self.attended, layer, config.heads, config.key_heads, scale, window, softcap, chunk, sinks))
        self.linear(self.attended, layer, ("attn_output", self.branch))

    def feed_forward(self, layer: int) -> None:
        """normed (T, D) to branch (T, D)."""
        width = self.config.feed_forward
        gate, up = self.gate_up.view(0, width), self.gate_up.view(width, width)
        if self.config.fused_gate_up:
            self.linear(self.normed, layer, ("ffn_up", self.gate_up.view()))
        else:
            self.linear(self.normed, layer, ("ffn_gate", gate), ("ffn_up", up))
        self.ops.append(GatedActivation(gate, up, gate, self.config.activation))
        self.linear(gate, layer, ("ffn_down", self.branch))
