"""The kinds of operation that a model is made of. Data only: a backend decides how each is computed.

Axis letters: T tokens of a step, D model width, H query heads, K key heads, C head width, F feed-forward width, V vocabulary.
Every buffer is float32 (T, width); an operand is a `View`: some columns of a buffer.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar


@dataclass(frozen=True)
class Buffer:
    """An activation, float32 (T, width)."""

    name: str
    width: int

    def view(self, start: int = 0, width: int | None = None) -> View:
        return View(self, start, self.width - start if width is None else width)


@dataclass(frozen=True)
class View:
    """Columns `start` to `start + width` of a buffer."""

    buffer: Buffer
    start: int
    width: int


@dataclass(frozen=True)
class RopeSpec:
    """Rotary position: pair i of the first 2 * len(frequencies) values of each head turns by position * frequencies[i].

    All scaling variants are folded into `frequencies` (radians a position) and `magnitude` (multiplies cos and sin).
    `adjacent`: pairs are (2i, 2i+1), else (i, i + len(frequencies)).
    """

    frequencies: tuple[float, ...]
    magnitude: float = 1.0
    adjacent: bool = False


@dataclass(frozen=True)
class Op:
    """Base of all ops. `reads`, `writes` name the fields that hold views; a field in both is changed in place."""

    reads: ClassVar[tuple[str, ...]] = ()
    writes: ClassVar[tuple[str, ...]] = ()

    def views(self, names: tuple[str, ...]) -> list[View]:
        """The views in the given fields, tuples of views flattened, None left out."""
        found: list[View] = []
        for name in names:
            value = getattr(self, name)
            found += [v for v in (value if isinstance(value, tuple) else (value,)) if v is not None]
        return found

    @property
    def kind(self) -> str:
        return type(self).__name__

    def __str__(self) -> str:
        shown = ", ".join(f"{f.name}={show(getattr(self, f.name))}" for f in fields(self))
        return f"{self.kind}({shown})"


def show(value: object) -> str:
    """A field for people: views as `buffer[start:end]`, long tuples shortened."""
    if isinstance(value, View):
        return f"{value.buffer.name}[{value.start}:{value.start + value.width}]"
    if isinstance(value, tuple):
        return "(" + ", ".join(show(v) for v in value[:4]) + (", ..." if len(value) > 4 else "") + ")"
    return str(value)


@dataclass(frozen=True)
class Embed(Op):
    """out[t] = scale * weight[tokens[t]]; weight (V, D)."""

    weight: str
    out: View
    scale: float = 1.0
    writes: ClassVar = ("out",)


@dataclass(frozen=True)
class Norm(Op):
    """RMS norm: out = x / sqrt(mean(x^2) + eps) * (weight + weight_offset), over each of `heads` equal parts of the width.

    With `add`, x += add happens first, in place (the residual stream); without it, out may be x itself.
    weight (width / heads,) or None for all ones.
    """

    x: View
    weight: str | None
    out: View
    eps: float
    heads: int = 1
    weight_offset: float = 0.0
    add: View | None = None
    reads: ClassVar = ("x", "add")
    writes: ClassVar = ("out",)  # and x, where add is given


@dataclass(frozen=True)
class Linear(Op):
    """outs[i] = x @ weights[i].T + biases[i]; weights[i] (outs[i].width, x.width), of any quant; biases[i] (outs[i].width,)."""

    x: View
    weights: tuple[str, ...]
    outs: tuple[View, ...]
    biases: tuple[str | None, ...] = ()  # empty: none
    reads: ClassVar = ("x",)
    writes: ClassVar = ("outs",)


@dataclass(frozen=True)
class Rope(Op):
    """Rotate each of the `heads` heads of x, in place."""

    x: View
    heads: int
    rope: RopeSpec
    reads: ClassVar = ("x",)
    writes: ClassVar = ("x",)


@dataclass(frozen=True)
class WriteKeysValues(Op):
    """Store k (T, K * C) and v (T, K * Cv) at (slot, position) of every token, in the keys' and values' own precision."""

    k: View
    v: View
    layer: int
    reads: ClassVar = ("k", "v")


@dataclass(frozen=True)
class Attention(Op):
    """Causal grouped attention of q (T, H * C) over the keys and values of the same slot; out (T, H * Cv).

    score = scale * q.k, then softcap * tanh(score / softcap) if softcap. Query head h reads key head h // (H / K).
    window w: a key at distance w or more is not seen (w keys, itself included).
    """

    q: View
    out: View
    layer: int
    heads: int
    key_heads: int
    scale: float
    window: int | None = None
    softcap: float | None = None
    reads: ClassVar = ("q",)
    writes: ClassVar = ("out",)


@dataclass(frozen=True)
class GatedActivation(Op):
    """out = activation(gate) * up; `activation` is "silu" or "gelu_tanh". out may be gate."""

    gate: View
    up: View
    out: View
    activation: str = "silu"
    reads: ClassVar = ("gate", "up")
    writes: ClassVar = ("out",)


@dataclass(frozen=True)
class Logits(Op):
    """The step's result: for each row r of `outputs`, softcap(scale * (x[outputs[r]] @ weight.T)); weight (V, D)."""

    x: View
    weight: str
    scale: float = 1.0
    softcap: float | None = None
    reads: ClassVar = ("x",)
