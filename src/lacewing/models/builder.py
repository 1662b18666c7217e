"""What blocks write a program with: ops in order, weights with their shapes, and the state of each layer."""

from __future__ import annotations

from collections.abc import Callable

from lacewing.models.config import ModelConfig
from lacewing.models.rope import rope_spec
from lacewing.program.operands import Buffer, Op, View
from lacewing.program.ops import AddNorm, Linear, Norm
from lacewing.program.program import Program
from lacewing.program.states import State


class Builder:
    """Collects the ops, weights and states of a program for `context` positions at most, which some rotations depend on.

    Buffers are shared by all layers: every block reads `normed` and leaves in `branch` what is added to `x`.
    """

    def __init__(self, config: ModelConfig, context: int):
        self.config, self.context = config, context
        self.ops: list[Op] = []
        self.weights: dict[str, tuple[int, ...]] = {}
        self.states: list[State] = []
        self._widths: dict[str, int] = {}  # of buffers, as the first layer has them
        self.kv_states: dict[int, int] = {}  # by layer, for those that others read
        self.rope = rope_spec(config.rope, context, config.adjacent_rope)
        self.local_rope = rope_spec(config.local_rope, context, config.adjacent_rope)
        self.x = Buffer("x", config.width).view()  # the residual stream (T, D)
        self.hidden = Buffer("normed", config.width).view()  # what the output head reads
        self.normed = Buffer("normed", config.width).view() if config.pre_norms else self.x
        self.branch = Buffer("branch", config.width).view()

    def program(self) -> Program:
        return Program(tuple(self.ops), self.weights, tuple(self.states), self.config.vocab_size)

    def weight(self, name: str, *shape: int) -> str:
        """The name again, once its shape is noted."""
        self.weights[name] = shape
        return name

    def buffer(self, name: str, width: int) -> Buffer:
        """One that all layers share in which it has this width."""
        known = self._widths.setdefault(name, width)
        return Buffer(name if known == width else f"{name} of {width}", width)

    def state(self, state: State) -> int:
        """The index by which ops name this state."""
        self.states.append(state)
        return len(self.states) - 1

    def norm(
        self, x: View, name: str, out: View, heads: int = 1, add: View | None = None, eps: float | None = None,
        kind: str = "weight", own: bool = False, bias: bool | None = None,
    ) -> None:  # fmt: skip
        """`own`: each head has weights of its own; `bias`: None for what the config says."""
        config, eps, width = self.config, eps or self.config.eps, x.width if own else x.width // heads
        weight = self.weight(f"{name}.{kind}", width)
        biased = config.norm_biases if bias is None else bias
        shift = self.weight(f"{name}.bias", x.width // heads) if biased else None
        if add is None:
            self.ops.append(Norm(x, weight, out, eps, heads, config.norm_offset, shift, config.layer_norm))
        else:
            scale = config.residual_scale
            self.ops.append(AddNorm(x, add, weight, out, eps, config.norm_offset, scale, shift, config.layer_norm))

    def linear(self, x: View, layer: int, *outs: tuple[str, View]) -> None:
        """One or several products of the same x, each with a bias where the config says so."""
        weights = tuple(self.weight(f"blk.{layer}.{name}.weight", out.width, x.width) for name, out in outs)
        biases: tuple[str | None, ...] = ()
        if any(name in self.config.biases for name, _ in outs):
            biases = tuple(
                self.weight(f"blk.{layer}.{name}.bias", out.width) if name in self.config.biases else None for name, out in outs
            )
        self.ops.append(Linear(x, weights, tuple(out for _, out in outs), biases))

    def project(self, x: View, name: str, out: View) -> None:
        """A product that belongs to no layer."""
        self.ops.append(Linear(x, (self.weight(f"{name}.weight", out.width, x.width),), (out,)))


Block = Callable[[Builder, int], None]  # writes the ops of a layer, or of one part of it
