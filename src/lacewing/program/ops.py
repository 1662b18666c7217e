"""The kinds of operation that a model is made of. Data only: a backend decides how each is computed.

Axis letters: T tokens of a step, D model width, H query heads, K key heads, C head width, F feed-forward width, V vocabulary,
E experts, A active experts. Every buffer is float32 (T, width); an operand is a `View`: some columns of a buffer. What each
active expert has of its own stands side by side, (T, A * width), in the order of the ids, which are int32 in a float32's bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from lacewing.program.activation_ops import Activation as Activation
from lacewing.program.activation_ops import ClampedActivation as ClampedActivation
from lacewing.program.activation_ops import GatedActivation as GatedActivation
from lacewing.program.activation_ops import LimitedActivation as LimitedActivation
from lacewing.program.expert_ops import Combine as Combine
from lacewing.program.expert_ops import Dispatch as Dispatch
from lacewing.program.expert_ops import ExpertLinear as ExpertLinear
from lacewing.program.expert_ops import Route as Route
from lacewing.program.operands import Buffer as Buffer
from lacewing.program.operands import ChangesState, In, InOut, Out, ReadsState, Weight, WritesState, check_kinds
from lacewing.program.operands import Op as Op
from lacewing.program.operands import View as View
from lacewing.program.operands import show as show
from lacewing.program.recurrent_ops import GatedDelta as GatedDelta
from lacewing.program.recurrent_ops import SelectiveScan as SelectiveScan


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
class Embed(Op):
    """out[t] = scale * weight[tokens[t]]; weight (V, D)."""

    weight: Weight
    out: Out
    scale: float = 1.0


@dataclass(frozen=True)
class Norm(Op):
    """RMS norm: out = x / sqrt(mean(x^2) + eps) * (weight + weight_offset) + bias, over each of `heads` equal parts of the width.

    weight (width / heads,), the same for all parts, or (width,), or None for all ones; bias (width / heads,). out may be x itself.
    `centred`: of x - mean(x) in place of x, which is LayerNorm.
    """

    x: In
    weight: Weight | None
    out: Out
    eps: float
    heads: int = 1
    weight_offset: float = 0.0
    bias: Weight | None = None
    centred: bool = False


@dataclass(frozen=True)
class AddNorm(Op):
    """x += scale * add, in place (the residual stream), then out = norm of x as by `Norm` over the whole width."""

    x: InOut
    add: In
    weight: Weight | None
    out: Out
    eps: float
    weight_offset: float = 0.0
    scale: float = 1.0
    bias: Weight | None = None
    centred: bool = False


@dataclass(frozen=True)
class Linear(Op):
    """outs[i] = x @ weights[i].T + biases[i]; weights[i] (outs[i].width, x.width), of any quant; biases[i] (outs[i].width,)."""

    x: In
    weights: tuple[Weight, ...]
    outs: tuple[Out, ...]
    biases: tuple[Weight | None, ...] = ()  # empty: none


@dataclass(frozen=True)
class Rope(Op):
    """Rotate each of the `heads` heads of x, in place; in each head the values from `start` on."""

    x: InOut
    heads: int
    rope: RopeSpec
    start: int = 0


@dataclass(frozen=True)
class Hadamard(Op):
    """Multiply every `size` values of x, in place, by the Hadamard matrix in Sylvester's order over sqrt(size), which is its own
    inverse; size is a power of two. Of queries and keys alike it changes no score, but spreads outliers before keys are rounded
    (QuaRot, arXiv 2404.00456).
    """

    x: InOut
    heads: int
    size: int


@dataclass(frozen=True)
class ScaleByPosition(Op):
    """x *= 1 + beta * ln(1 + floor((position + offset) / length)), in place: queries grow sharper far into a text."""

    x: InOut
    beta: float
    length: int
    offset: int = 0


@dataclass(frozen=True)
class HeadLinear(Op):
    """A matrix for each head: out_h = [weight[h] @ x_h[:I], x_h[I:]]; what lies behind the I inputs of a head is copied.

    x (T, H * (I + R)), out (T, H * (O + R)); weight (H, O, I), or (H, I, O) if `transposed`; R >= 0 follows from the widths.
    """

    x: In
    weight: Weight
    out: Out
    heads: int
    transposed: bool = False

    @property
    def weights_read_across(self) -> tuple[str, ...]:
        return self.weight_names if self.transposed else ()


@dataclass(frozen=True)
class SplitHeads(Op):
    """Take heads apart: a head of x (T, H * (W0 + W1 + ...)) is parts one behind the other, and part i of all heads, (T, H * Wi),
    goes to outs[i]. A width is none of x's own, but outs[i].width / H.
    """

    x: In
    outs: tuple[Out, ...]
    heads: int


@dataclass(frozen=True)
class WriteKeysValues(Op):
    """Store k (T, K * C) and v (T, K * Cv) at the row and position of every token, in the precision of the state's parts.

    `state` is a `PagedState` with the parts "keys" and "values"; a latent one has keys only, and v is None: the values are the
    first Cv values of each key. Where it has a part "index" too, `index` (T, Ci) is stored there: keys that `SelectKeys` scores.
    """

    k: In
    v: In | None
    state: WritesState
    index: In | None = None


@dataclass(frozen=True)
class SelectKeys(Op):
    """Choose which positions attention sees, by scores of its own: the lightning indexer of DeepSeek Sparse Attention.

    score(s) = sum over h of weights[h] * max(0, q_h . index[s]), for s up to the token's position; q (T, Hi * Ci), weights (T, Hi),
    index (S, Ci) as it is stored in the state's part "index". Of a token with more than N earlier positions (itself included),
    chosen (T, N) int32 are those with the largest scores, ascending; among equals the lower position is chosen, and NaN counts as
    the largest. A token with no more sees them all: what stands in chosen has no meaning then. In float32, added in the order of h.
    DeepSeek-V3.2 (arXiv 2512.02556).
    """

    q: In
    weights: In
    chosen: Out
    state: ReadsState
    heads: int


@dataclass(frozen=True)
class Attention(Op):
    """Causal grouped attention of q (T, H * C) over the keys and values of the token's row; out (T, H * Cv).

    score = scale * q.k, then softcap * tanh(score / softcap) if softcap. Query head h reads key head h // (H / K).
    window w: a key at distance w or more is not seen (w keys, itself included).
    chunk c: a query at position p sees keys from position p // c * c on only.
    sinks (H,): head h has one more score, sinks[h], neither scaled nor capped: it takes its share of the softmax, with no value.
    chosen (T, N): only the positions that `SelectKeys` chose are seen, of a latent state; of up to N positions all.
    """

    q: In
    out: Out
    state: ReadsState
    heads: int
    key_heads: int
    scale: float
    window: int | None = None
    softcap: float | None = None
    chunk: int | None = None
    sinks: Weight | None = None
    chosen: In | None = None

    @property
    def value_width(self) -> int:
        """Cv"""
        return self.out.width // self.heads


@dataclass(frozen=True)
class ShortConvolution(Op):
    """Causal depthwise convolution along positions: out[p] = sum over j < L of weight[:, j] * x[p - (L - 1) + j] (+ bias).

    x, out (T, D); weight (D, L), the last column is for the token itself; bias (D,). `state` is a `FixedState` with the part
    "conv" (L - 1, D): the last L - 1 rows of x before the run, oldest first, zeros before the first position.
    In float32, summed in the order of j. Liquid AI's LFM2, and the first step of Mamba and gated delta nets.
    """

    x: In
    weight: Weight
    out: Out
    state: ChangesState
    bias: Weight | None = None


@dataclass(frozen=True)
class Logits(Op):
    """The step's result: for each row r of `outputs`, softcap(scale * (x[outputs[r]] @ weight.T + bias)).

    weight (V, D); bias (V,) or None.
    """

    x: In
    weight: Weight
    scale: float = 1.0
    softcap: float | None = None
    bias: Weight | None = None


@dataclass(frozen=True)
class Receive(Op):
    """A stage of a part of a program begins (`offload.cut`): the values of `outs`, which may be none, come from other devices."""

    outs: tuple[Out, ...]


@dataclass(frozen=True)
class Send(Op):
    """A stage ends: the values of `xs`, which may be none, go to other devices."""

    xs: tuple[In, ...]


check_kinds()
