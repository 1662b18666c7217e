"""Embeddings that each token has for each layer: read by rows, mixed with a projection of its usual one. Gemma 3n and 4."""

from __future__ import annotations

from lacewing.models.builder import Builder
from lacewing.program.ops import Buffer, GatedActivation, View
from lacewing.program.stream_ops import AddScale, Lookup


def per_layer_inputs(b: Builder) -> None:
    """What every layer gets of a token, (T, layers * width), from its id and its embedding x (T, D)."""
    config, per_layer = b.config, b.config.per_layer
    if per_layer is None:
        return
    wide = config.layers * per_layer.width
    looked_up, projected = _inputs(b), Buffer("per_layer_projected", wide).view()
    table = b.weight("per_layer_token_embd.weight", per_layer.rows, wide)
    b.ops.append(Lookup(table, looked_up, per_layer.width**0.5, per_layer.other))
    b.project(b.x, "per_layer_model_proj", projected)
    # the model divides the projection by sqrt(D) first; the norm undoes that but for its eps
    b.norm(projected, "per_layer_proj_norm", projected, config.layers, eps=config.eps * config.width)
    b.ops.append(AddScale(looked_up, projected, looked_up, factor=2**-0.5))


def _inputs(b: Builder) -> View:
    width = b.config.per_layer.width if b.config.per_layer is not None else 0
    return Buffer("per_layer_inputs", b.config.layers * width).view()


def per_layer_branch(b: Builder, layer: int, x: View) -> None:
    """A gate from x (T, D) on a layer's own input, to branch (T, D)."""
    whole = _inputs(b)
    width = whole.width // b.config.layers
    gate = Buffer("per_layer_gate", width).view()
    b.linear(x, layer, ("inp_gate", gate))
    b.ops.append(GatedActivation(gate, whole.buffer.view(layer * width, width), gate, b.config.activation))
    b.linear(gate, layer, ("proj", b.branch))
    b.norm(b.branch, f"blk.{layer}.post_norm", b.branch)
