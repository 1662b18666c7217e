"""Routing statistics: which experts the routers of a mixture of experts choose, and how evenly.

References: the load-balancing loss of Switch Transformer (https://arxiv.org/abs/2101.03961) and its sequence-wise form of
DeepSeek-V3 (https://arxiv.org/abs/2412.19437), both without the factor alpha of training.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lacewing.backends.step import RoutedLayer
from lacewing.engine.engine import Engine
from lacewing.errors import NumericError, OptionError
from lacewing.options import Progress
from lacewing.program.ops import Route
from lacewing.program.program import Program

_BATCH = 64  # tokens that are counted together: token by token, the counting would cost more than the copy
_TENTH = 10


@dataclass(frozen=True)
class LayerRouting:
    """One layer. f_i is the share of expert i among all choices, P_i its mean probability; 1 / E each when all is even."""

    layer: int
    experts: int  # E
    active: int  # A
    tokens: int  # T
    counts: tuple[int, ...]  # tokens of each expert; they sum to A T
    busiest: float  # share of the busiest expert
    busiest_tenth: float  # share of the busiest tenth, E // 10 experts and at least one
    entropy_bits: float  # of f
    entropy_share: float  # of log2(E), the most there can be
    variation: float  # coefficient of variation: standard deviation of the counts / their mean
    balance_loss: float  # E * sum f_i P_i; 1 for an even softmax router
    sequence_loss: float  # the same with p_i / sum p_j for p_i, over each sequence, then the mean weighted by its tokens
    reuse: float | None  # mean share of a token's experts that the token before it used too; None without such a pair

    def heat(self, columns: int) -> list[float]:
        """Load over an even load, 1 = even, expert by expert; where E > `columns`, means of runs of neighbours."""
        run = math.ceil(self.experts / columns)
        even = self.active * self.tokens / self.experts
        parts = [self.counts[at : at + run] for at in range(0, self.experts, run)]
        return [sum(part) / len(part) / even for part in parts]


class RoutingStatistics:
    """Counts what `Step.routes` gives after each run: `add(step.routes())`. One sequence at a time.

    Tokens are taken to follow each other until `begin_sequence`.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self._layers: dict[int, _Counts] = {}
        self._pending: list[list[RoutedLayer]] = []
        self._waiting = 0  # tokens in `_pending`

    def begin_sequence(self) -> None:
        """The next token does not follow the last one."""
        self._fold()
        for counts in self._layers.values():
            counts.end_sequence()

    def add(self, routes: Sequence[RoutedLayer]) -> None:
        """Count a run, which may be empty. Copies what it keeps. Raises NumericError for probabilities that are not numbers."""
        if not routes:
            return
        count = len(routes[0].ids)
        self.tokens += count
        if count >= _BATCH:
            self._fold()
            self._count(routes)
            return
        self._pending.append([RoutedLayer(each.layer, each.ids.copy(), each.probabilities.copy()) for each in routes])
        self._waiting += count
        if self._waiting >= _BATCH:
            self._fold()

    def layers(self) -> list[LayerRouting]:
        """What has been counted, layer by layer; empty before the first token. Raises as `add`."""
        self._fold()
        return [self._layers[layer].result(layer) for layer in sorted(self._layers)]

    def newest(self) -> dict[int, frozenset[int]]:
        """The experts of the last token that was counted, by layer."""
        if self._pending:
            return {each.layer: frozenset(each.ids[-1].tolist()) for each in self._pending[-1]}
        return {layer: frozenset(counts.last[0].tolist()) for layer, counts in self._layers.items() if counts.last is not None}

    def _fold(self) -> None:
        pending, self._pending, self._waiting = self._pending, [], 0
        if pending:
            self._count(
                [
                    RoutedLayer(
                        same[0].layer,
                        np.concatenate([each.ids for each in same]),
                        np.concatenate([each.probabilities for each in same]),
                    )
                    for same in zip(*pending, strict=True)
                ]
            )

    def _count(self, routes: Sequence[RoutedLayer]) -> None:
        for each in routes:
            if not np.isfinite(each.probabilities).all():
                what = f"the router of layer {each.layer} gave NaN or infinity"
                raise NumericError(what, suspect=True)
        for each in routes:
            active, experts = each.ids.shape[1], each.probabilities.shape[1]
            self._layers.setdefault(each.layer, _Counts(active, experts)).add(each.ids, each.probabilities)


class _Counts:
    """Sums of one layer: of everything, and of the current sequence."""

    def __init__(self, active: int, experts: int):
        self.active, self.experts, self.tokens = active, experts, 0
        self.counts, self.mass = np.zeros(experts, np.int64), np.zeros(experts)  # mass: sum of p
        self.loss = 0.0  # of the sequences that have ended, each times its tokens
        self.same, self.pairs = 0, 0
        self._begin()

    def _begin(self) -> None:
        self.sequence_tokens = 0
        self.sequence_counts, self.sequence_mass = np.zeros(self.experts, np.int64), np.zeros(self.experts)
        self.last: np.ndarray | None = None  # ids (1, A) of the token before

    def add(self, ids: np.ndarray, p: np.ndarray) -> None:
        """ids (T, A), p (T, E)."""
        counts = np.bincount(ids.ravel(), minlength=self.experts)
        self.counts += counts
        self.sequence_counts += counts
        self.mass += p.sum(0, dtype=np.float64)
        self.sequence_mass += (p / (p.sum(1, keepdims=True) + 1e-20)).sum(0, dtype=np.float64)
        self.tokens += len(ids)
        self.sequence_tokens += len(ids)
        chain = ids if self.last is None else np.concatenate([self.last, ids])
        self.same += int((chain[1:, :, None] == chain[:-1, None, :]).sum())  # an expert is at most once in a token
        self.pairs += len(chain) - 1
        self.last = ids[-1:].copy()

    def end_sequence(self) -> None:
        self.loss += self._sequence_loss()
        self._begin()

    def _sequence_loss(self) -> float:
        """Of the current sequence, times its tokens."""
        if not self.sequence_tokens:
            return 0.0
        f = self.experts / (self.active * self.sequence_tokens) * self.sequence_counts
        return float(f @ self.sequence_mass)  # P = mass / tokens

    def result(self, layer: int) -> LayerRouting:
        f, experts = self.counts / self.counts.sum(), self.experts
        ordered, used = np.sort(f)[::-1], f[f > 0]
        entropy = float(used @ np.log2(1 / used))
        return LayerRouting(
            layer=layer,
            experts=experts,
            active=self.active,
            tokens=self.tokens,
            counts=tuple(self.counts.tolist()),
            busiest=float(ordered[0]),
            busiest_tenth=float(ordered[: max(1, experts // _TENTH)].sum()),
            entropy_bits=entropy,
            entropy_share=entropy / math.log2(experts) if experts > 1 else 1.0,
            variation=float(self.counts.std() / self.counts.mean()),
            balance_loss=float(experts * (f @ self.mass) / self.tokens),
            sequence_loss=(self.loss + self._sequence_loss()) / self.tokens,
            reuse=self.same / (self.pairs * self.active) if self.pairs else None,
        )


class AnswerRouting:
    """An observer of an engine that counts, of the answer that runs now or ran last, in `statistics`.

    An answer is a prompt, in one or several runs, and then runs of a token. Where positions go back, another one begins.
    """

    def __init__(self) -> None:
        self.statistics = RoutingStatistics()
        self._next = -1  # the position that would go on
        self._generating = False

    def __call__(self, positions: np.ndarray, routes: Sequence[RoutedLayer]) -> None:
        if self._next != positions[0] or (self._generating and len(positions) > 1):
            self.statistics = RoutingStatistics()
        self._next, self._generating = int(positions[-1]) + 1, len(positions) == 1
        self.statistics.add(routes)


def routers(program: Program) -> list[Route]:
    """In the order of the layers; empty for a dense model."""
    return [op for op in program.ops if isinstance(op, Route)]


def has_sequence_loss(program: Program) -> bool:
    """Whether a router is one whose loss is told by sequence: of sigmoid scores, or in groups."""
    return any(router.gating == "sigmoid" or router.groups > 1 for router in routers(program))


MEANS = ("busiest", "busiest_tenth", "entropy_bits", "entropy_share", "variation", "balance_loss", "sequence_loss", "reuse")


def means(layers: Sequence[LayerRouting]) -> dict[str, float | None]:
    """The mean of every statistic over the layers; None where no layer has it."""
    found: dict[str, float | None] = {}
    for name in MEANS:
        values = [getattr(each, name) for each in layers if getattr(each, name) is not None]
        found[name] = sum(values) / len(values) if values else None
    return found


def as_dict(layers: Sequence[LayerRouting]) -> dict[str, object]:
    """Plain values for JSON."""
    return {"layers": [dataclasses.asdict(each) for each in layers], "mean": means(layers)}


def trace_lines(routes: Sequence[RoutedLayer], first: int = 0) -> Iterator[str]:
    """A JSON line a token, without its line end: `{"tok": 0, "layers": [[ids], ...]}`, the layers that have experts in order.

    `first`: the number of the first token.
    """
    layers = [each.ids.tolist() for each in routes]
    for token, ids in enumerate(zip(*layers, strict=True)):
        yield json.dumps({"tok": first + token, "layers": ids})


def watch_text(
    engine: Engine,
    ids: Sequence[int],
    begin: Sequence[int] = (),
    trace: Callable[[str], object] | None = None,
    progress: Progress | None = None,
) -> RoutingStatistics:
    """Run a text through a mixture of experts and count; what does not fit into the context goes into further sequences.

    Each sequence begins with `begin`. `trace` gets lines of `trace_lines`, some at a time. Raises OptionError for an empty
    text or a context without room for it, NumericError.
    """
    room, statistics = engine.context - len(begin), RoutingStatistics()
    if not ids:
        raise OptionError("the text is empty: it needs at least one token")
    if room < 1:
        raise OptionError(f"a context of {engine.context} tokens has no room for text; load with a larger `context`")

    def count(positions: np.ndarray, routes: Sequence[RoutedLayer]) -> None:
        if trace is not None:
            trace("".join(f"{line}\n" for line in trace_lines(routes, statistics.tokens)))
        statistics.add(routes)

    engine.observe(count)
    try:
        for start in range(0, len(ids), room):
            engine.forget()
            statistics.begin_sequence()
            window = [*begin, *ids[start : start + room]]
            while len(engine.cached) < len(window):
                at = len(engine.cached)
                row = engine.extend(window[at : at + engine.responsive_chunk()])
                if np.isnan(row).any():
                    raise NumericError("the model produced NaN logits", suspect=True).from_pack(engine.scheduler.pack())
                if progress is not None:
                    progress("reading the text", start + max(0, len(engine.cached) - len(begin)), len(ids))
    finally:
        engine.unobserve(count)
        engine.forget()
    return statistics
