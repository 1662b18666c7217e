"""Cases of the ops of `program/stream_ops.py`, for all backends; and what two of them compute, written out value by value."""

from __future__ import annotations

import numpy as np

from lacewing.program.ops import Buffer, Op, Route
from lacewing.program.stream_ops import AddScale, AltUpCorrect, AltUpPredict, GaussianTopK, Lookup, MatchMagnitude
from tests.backends.cpu.single_ops import Case, floats, normal, random_weight

STREAMS = 4
WIDTHS = (5, 64, 300)
KINDS = ("predict", "correct", "magnitude", "top k", "add", "add to all", "scale", "scale columns")
QUANTS = ("F32", "BF16", "Q8_0", "Q4_K", "IQ4_XS")


def stream_case(kind: str, width: int) -> Case:
    """20 tokens of STREAMS streams of `width` values each; all of the buffer is looked at."""
    whole = Buffer("x", STREAMS * width + STREAMS + 2 * width)
    streams, router = whole.view(0, STREAMS * width), whole.view(STREAMS * width, STREAMS)
    new, other = (whole.view(STREAMS * width + STREAMS + part * width, width) for part in range(2))
    ops: dict[str, Op] = {
        "predict": AltUpPredict(streams, router, "square", 0.7),
        "correct": AltUpCorrect(streams, router, new, "one each", 1, 0.7),
        "magnitude": MatchMagnitude(new, other),
        "top k": GaussianTopK(new, 0.4),
        "add": AddScale(new, other, other),
        "add to all": AddScale(streams, new, streams, "one", 0.3),
        "scale": AddScale(streams, None, streams, "one"),
        "scale columns": AddScale(streams, new, streams, "columns", 1.5),
    }
    weights = [
        floats("square", normal(STREAMS * STREAMS, STREAMS, seed=1)), floats("one each", normal(STREAMS, STREAMS, seed=2)),
        floats("one", np.array([0.3], np.float32)), floats("columns", normal(width, seed=3)),
    ]  # fmt: skip
    used = {weight.name: weight for weight in weights if weight.name in ops[kind].weight_names}
    return Case((ops[kind],), normal(20, whole.width), whole.view(), used)


def lookup_case(quant: str, scale: float = 1.5) -> Case:
    """A table of 13 rows for 20 tokens: those behind it take row 3."""
    out = Buffer("rows of the table", 512).view()
    return Case((Lookup("table", out, scale, 3),), normal(20, 8), out, {"table": random_weight("table", quant, 13, 512)})


def scaled_route(bias: bool) -> Case:
    """Chosen experts with a factor each."""
    x = Buffer("x", 8).view()
    ids, chosen = Buffer("ids", 3).view(), Buffer("chosen", 3).view()
    weights = {"scales": floats("scales", normal(8, seed=1))} | ({"bias": floats("bias", normal(8, seed=2))} if bias else {})
    route = Route(x, ids, chosen, bias="bias" if bias else None, renormalise=True, scale=0.7, scales="scales")
    return Case((route,), normal(20, 8), chosen, weights)
