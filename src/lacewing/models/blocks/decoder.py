"""The frame of a decoder: embedding, layers with a residual stream, output. What stands in a layer is the architecture's word."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from lacewing.models.blocks.attention import attention
from lacewing.models.blocks.feed_forward import feed_forward, mixture_of_experts
from lacewing.models.blocks.latent import latent_attention
from lacewing.models.builder import Block, Builder
from lacewing.models.config import ModelConfig
from lacewing.program.ops import Combine, Embed, Logits, View
from lacewing.program.program import Program

BlockOf = Callable[[ModelConfig, int], Block]  # the block of each layer
Edge = Callable[[Builder], None]  # what stands before the first layer or behind the last


def nothing(b: Builder) -> None:
    """The embedding goes into the first layer as it is."""


def final_norm(b: Builder) -> None:
    """x with what the last layer adds, normed, to hidden (T, D)."""
    b.norm(b.x, "output_norm", b.hidden, add=b.branch)


def build_program(config: ModelConfig, context: int, block_of: BlockOf, begin: Edge = nothing, end: Edge = final_norm) -> Program:
    """The program of one step, for `context` positions at most. `begin`: from the embedding x on; `end`: to hidden (T, D)."""
    b = Builder(config, context)
    embedding = b.weight("token_embd.weight", config.vocab_size, config.width)
    b.ops.append(Embed(embedding, b.x, config.embedding_scale))
    begin(b)
    for layer in range(config.layers):
        block_of(config, layer)(b, layer)
    end(b)
    output = embedding if config.tied_output else b.weight("output.weight", config.vocab_size, config.width)
    bias = b.weight("output.bias", config.vocab_size) if config.output_bias else None
    b.ops.append(Logits(b.hidden, output, config.logits_scale, config.final_softcap, bias))
    return b.program()


def standard_block(config: ModelConfig, layer: int) -> Block:
    """Attention and feed-forward, each in the form that the config names for the layer."""
    mixer: Block = attention if config.latent is None else partial(latent_attention, config.latent)
    return (parallel_block if config.parallel else residual_block)(mixer, forward_of(config, layer))


def forward_of(config: ModelConfig, layer: int) -> Block:
    """The feed-forward of a layer: a mixture of experts, or one for all."""
    mixture = config.mixture
    return partial(mixture_of_experts, mixture) if mixture is not None and mixture.layers[layer] else feed_forward


def residual_block(mixer: Block, forward: Block) -> Block:
    """A layer that adds to the residual stream what the mixer of tokens gives, then what feed-forward gives."""

    def block(b: Builder, layer: int) -> None:
        config, name = b.config, f"blk.{layer}"
        # what the block before has left in branch is added by the norm that follows it
        _enter(b, f"{name}.attn_norm", b.branch if layer else None)
        mixer(b, layer)
        if config.post_norms:
            b.norm(b.branch, f"{name}.post_attention_norm", b.branch)
        _enter(b, f"{name}.{config.feed_forward_norm}", b.branch)
        forward(b, layer)
        if config.post_norms:
            b.norm(b.branch, f"{name}.post_ffw_norm", b.branch)

    return block


def parallel_block(mixer: Block, forward: Block) -> Block:
    """A layer whose mixer of tokens and feed-forward read the same norm of the residual stream."""
    first = single_block(mixer)

    def block(b: Builder, layer: int) -> None:
        first(b, layer)
        b.ops.append(Combine(b.branch, None, b.x, 1, b.x))  # what comes next writes to branch, too
        forward(b, layer)

    return block


def single_block(mixer: Block) -> Block:
    """A layer of one part, which adds to the residual stream."""

    def block(b: Builder, layer: int) -> None:
        _enter(b, f"blk.{layer}.attn_norm", b.branch if layer else None)
        mixer(b, layer)

    return block


def _enter(b: Builder, norm: str, add: View | None) -> None:
    """What a part of a layer reads: the stream with `add` in it, through its norm where the model has one there."""
    if b.config.pre_norms:
        b.norm(b.x, norm, b.normed, add=add)
    elif add is not None:
        b.ops.append(Combine(add, None, b.x, 1, b.x))
