"""The kinds of operation that a model is made of. Data only: a backend decides how each is computed.

Axis letters: T tokens of a step, D model width, H query heads, K key heads, C head width, F feed-forward width, V vocabulary,
E experts, A active experts. Every buffer is float32 (T, width); an operand is a `View`: some columns of a buffer. What each
active expert has of its own stands side by side, (T, A * width), in the order of the ids, which are int32 in a float32's bytes.
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
        values = (getattr(self, name) for name in names)
        return [view for value in values for view in (value if isinstance(value, tuple) else (value,)) if view is not None]

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
    """Rotate each of the `heads` heads of x, in place; in each head the values from `start` on."""

    x: View
    heads: int
    rope: RopeSpec
    start: int = 0
    reads: ClassVar = ("x",)
    writes: ClassVar = ("x",)


@dataclass(frozen=True)
class ScaleByPosition(Op):
    """x *= 1 + beta * ln(1 + floor((position + offset) / length)), in place: queries grow sharper far into a text."""

    x: View
    beta: float
    length: int
    offset: int = 0
    reads: ClassVar = ("x",)
    writes: ClassVar = ("x",)


@dataclass(frozen=True)
class HeadLinear(Op):
    """A matrix for each head: out_h = [weight[h] @ x_h[:I], x_h[I:]]; what lies behind the I inputs of a head is copied.

    x (T, H * (I + R)), out (T, H * (O + R)); weight (H, O, I), or (H, I, O) if `transposed`; R >= 0 follows from the widths.
    """

    x: View
    weight: str
    out: View
    heads: int
    transposed: bool = False
    reads: ClassVar = ("x",)
    writes: ClassVar = ("out",)


@dataclass(frozen=True)
class WriteKeysValues(Op):
    """Store k (T, K * C) and v (T, K * Cv) at (slot, position) of every token, in the keys' and values' own precision.

    v None: the layer's values are the first Cv values of each key (`KeyValueShape.values_in_keys`) and need no place.
    """

    k: View
    v: View | None
    layer: int
    reads: ClassVar = ("k", "v")


@dataclass(frozen=True)
class Attention(Op):
    """Causal grouped attention of q (T, H * C) over the keys and values of the same slot; out (T, H * Cv).

    score = scale * q.k, then softcap * tanh(score / softcap) if softcap. Query head h reads key head h // (H / K).
    window w: a key at distance w or more is not seen (w keys, itself included).
    chunk c: a query at position p sees keys from position p // c * c on only.
    sinks (H,): head h has one more score, sinks[h], neither scaled nor capped: it takes its share of the softmax, with no value.
    """

    q: View
    out: View
    layer: int
    heads: int
    key_heads: int
    scale: float
    window: int | None = None
    softcap: float | None = None
    chunk: int | None = None
    sinks: str | None = None
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
class ClampedActivation(Op):
    """out = g * sigmoid(alpha * g) * (u + 1) with g = min(gate, limit), u = clamp(up, -limit, limit). out may be gate."""

    gate: View
    up: View
    out: View
    alpha: float
    limit: float
    reads: ClassVar = ("gate", "up")
    writes: ClassVar = ("out",)


@dataclass(frozen=True)
class Route(Op):
    """Choose A of E experts for each token: ids (T, A) int32, all different; weights (T, A) float32.

    p = softmax(logits) or sigmoid(logits), as `gating` says. The choice goes by s = p + bias[E] where there is a bias, else by the
    logits: the A largest, best first, the lower id first among equals. With `groups` > 1 the E experts are so many equal runs, and
    only those in the best `groups_used` runs can be chosen; the score of a run is the sum of its `group_best` (1 or 2) largest s,
    where s = p + bias, or p without a bias; the lower run wins among equals. Then w = p[ids] (the bias only chooses);
    with `renormalise`, w /= sum(w) + 1e-20; w *= scale. All in float32.
    A row with a NaN or an infinity among its logits or its s gets ids 0 ... A - 1 and weights NaN, so that no id is ever out of
    range and the fault shows.
    """

    logits: View
    ids: View
    weights: View
    gating: str = "softmax"
    bias: str | None = None
    groups: int = 1
    groups_used: int = 1
    group_best: int = 2
    renormalise: bool = False
    scale: float = 1.0
    reads: ClassVar = ("logits",)
    writes: ClassVar = ("ids", "weights")


@dataclass(frozen=True)
class ExpertLinear(Op):
    """A linear of each active expert: part a of outs[i] = factor[a] * (x @ weights[i][e].T) + biases[i][e], e = ids[a].

    x (T, I), the same for all active experts, or (T, A * I), a part for each (`separate`). ids (T, A) int32.
    weights[i] (E, O_i, I), any quant, or (E, I, O_i) if `transposed`; biases[i] (E, O_i). outs[i] (T, A * O_i).
    factor None: 1, else (T, A): the weight of an expert on its input.
    One weight with two outs gives both, O each, from its 2 * O rows: the first O rows and the others, or if `interleaved` the even
    and the odd ones; its bias (E, 2 * O) likewise. There is one bias (or None) a weight. Parts of the id -1 are left as they are.
    """

    x: View
    ids: View
    weights: tuple[str, ...]
    outs: tuple[View, ...]
    biases: tuple[str | None, ...] = ()  # empty: none
    factor: View | None = None
    separate: bool = False
    transposed: bool = False
    interleaved: bool = False
    reads: ClassVar = ("x", "ids", "factor")
    writes: ClassVar = ("outs",)


@dataclass(frozen=True)
class Allot(Op):
    """Which device computes which chosen expert of a layer that two share (`offload.experts`). All (T, A) int32, of
    `experts` experts.

    here: the place in the stacks of the one that holds `held`, at the time of the run, else -1. there: the id, -1 if it is here.
    """

    ids: View
    here: View
    there: View
    experts: int
    held: int
    reads: ClassVar = ("ids",)
    writes: ClassVar = ("here", "there")


@dataclass(frozen=True)
class Combine(Op):
    """out (T, D) = sum over a of weights[a] * x[a] (in the order of a), then + add. x (T, A * D).

    weights (T, A), or None for all ones. add (T, D), such as the shared expert, may be out itself. ids: those of -1 do not count.
    """

    x: View
    weights: View | None
    out: View
    active: int
    add: View | None = None
    ids: View | None = None
    reads: ClassVar = ("x", "weights", "add", "ids")
    writes: ClassVar = ("out",)


@dataclass(frozen=True)
class Logits(Op):
    """The step's result: for each row r of `outputs`, softcap(scale * (x[outputs[r]] @ weight.T)); weight (V, D)."""

    x: View
    weight: str
    scale: float = 1.0
    softcap: float | None = None
    reads: ClassVar = ("x",)


@dataclass(frozen=True)
class Receive(Op):
    """A stage of a part of a program begins (`offload.cut`): the values of `outs`, which may be none, come from other devices."""

    outs: tuple[View, ...]
    writes: ClassVar = ("outs",)


@dataclass(frozen=True)
class Send(Op):
    """A stage ends: the values of `xs`, which may be none, go to other devices."""

    xs: tuple[View, ...]
    reads: ClassVar = ("xs",)
