"""The kinds of operation of a mixture of experts: who is chosen, what the chosen compute, and their sum. Axes as in `ops.py`."""

from __future__ import annotations

from dataclasses import dataclass

from lacewing.program.operands import In, Op, Out, Weight


@dataclass(frozen=True)
class Route(Op):
    """Choose A of E experts for each token: ids (T, A) int32, all different; weights (T, A) float32.

    p = softmax(logits) or sigmoid(logits), as `gating` says. The choice goes by s = p + bias[E] where there is a bias, else by the
    logits: the A largest, best first, the lower id first among equals. With `groups` > 1 the E experts are so many equal runs, and
    only those in the best `groups_used` runs can be chosen; the score of a run is the sum of its `group_best` (1 or 2) largest s,
    where s = p + bias, or p without a bias; the lower run wins among equals. Then w = p[ids] (the bias only chooses);
    with `renormalise`, w /= sum(w) + 1e-20; w *= scale, and scales[ids] where there are scales (E,). All in float32.
    "sparsemixer" (arXiv 2409.12136, as for inference): chosen as by softmax, without a bias or groups; then each chosen logit m is
    weighed by a softmax over itself and those not chosen before it that are nearly as large: m - x <= 2 * jitter * max(|x|, m).
    A row with a NaN or an infinity among its logits or its s gets ids 0 ... A - 1 and weights NaN, so that no id is ever out of
    range and the fault shows.
    """

    logits: In
    ids: Out
    weights: Out
    gating: str = "softmax"
    bias: Weight | None = None
    groups: int = 1
    groups_used: int = 1
    group_best: int = 2
    renormalise: bool = False
    scale: float = 1.0
    layer: int = 0  # of the model, for those who watch
    scales: Weight | None = None
    jitter: float = 0.0


@dataclass(frozen=True)
class ExpertLinear(Op):
    """A linear of each active expert: part a of outs[i] = factor[a] * (x @ weights[i][e].T) + biases[i][e], e = ids[a].

    x (T, I), the same for all active experts, or (T, A * I), a part for each (`separate`). ids (T, A) int32.
    weights[i] (E, O_i, I), any quant, or (E, I, O_i) if `transposed`; biases[i] (E, O_i). outs[i] (T, A * O_i).
    factor None: 1, else (T, A): the weight of an expert on its input.
    One weight with two outs gives both, O each, from its 2 * O rows: the first O rows and the others, or if `interleaved` the even
    and the odd ones; its bias (E, 2 * O) likewise. There is one bias (or None) a weight. Parts of the id -1 are left as they are.
    """

    x: In
    ids: In
    weights: tuple[Weight, ...]
    outs: tuple[Out, ...]
    biases: tuple[Weight | None, ...] = ()  # empty: none
    factor: In | None = None
    separate: bool = False
    transposed: bool = False
    interleaved: bool = False

    @property
    def weights_read_across(self) -> tuple[str, ...]:
        return self.weights if self.transposed else ()


@dataclass(frozen=True)
class Dispatch(Op):
    """Which device computes which chosen expert of a layer that two share (`offload.experts`). All (T, A) int32, of
    `experts` experts.

    here: the place in the stacks of the one that has `resident` of them, at the time of the run, else -1. there: the id, -1 if it
    is here.
    """

    ids: In
    here: Out
    there: Out
    experts: int
    resident: int


@dataclass(frozen=True)
class Combine(Op):
    """out (T, D) = sum over a of weights[a] * x[a] (in the order of a), then + add. x (T, A * D).

    weights (T, A), or None for all ones. add (T, D), such as the shared expert, may be out itself. ids: those of -1 do not count.
    """

    x: In
    weights: In | None
    out: Out
    active: int
    add: In | None = None
    ids: In | None = None
