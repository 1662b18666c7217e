"""The checker's rules for the ops of `stream_ops.py`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from lacewing.program import stream_ops as streams
from lacewing.program.checker import Checker, in_place, require
from lacewing.program.operands import Op


def _lookup(c: Checker, op: streams.Lookup) -> None:
    rows = next(iter(c.program.weights.get(op.table, ())), 0)
    require(0 <= op.other < rows, f"row {op.other} of {rows}")
    require(math.isfinite(op.scale), f"scale {op.scale}")
    c.weight(op.table, rows, op.out.width)


def _add_scale(c: Checker, op: streams.AddScale) -> None:
    period = op.x.width if op.add is None else op.add.width
    require(op.out.width == op.x.width, f"out has width {op.out.width}, x {op.x.width}")
    require(op.x.width % period == 0, f"add has width {period}, which does not divide that of x, {op.x.width}")
    in_place(op.out, op.x, "x")
    if op.add is not None:
        in_place(op.out, op.add, "add")
    require(math.isfinite(op.factor), f"factor {op.factor}")
    if op.weight is not None:
        c.weight(op.weight, 1 if tuple(c.program.weights.get(op.weight, ())) == (1,) else period)


def _predict(c: Checker, op: streams.AltUpPredict) -> None:
    count = _streams(op)
    c.weight(op.weight, count * count, count)


def _correct(c: Checker, op: streams.AltUpCorrect) -> None:
    count = _streams(op)
    require(0 <= op.active < count, f"stream {op.active} of {count}")
    require(op.new.width * count == op.x.width, f"new has width {op.new.width}, for {count} streams of {op.x.width}")
    require(not op.new.overlaps(op.x), "new overlaps x")
    c.weight(op.weight, count, count)


def _streams(op: streams.AltUpPredict | streams.AltUpCorrect) -> int:
    count = op.router.width
    require(count >= 1 and op.x.width % count == 0, f"width {op.x.width} is not {count} equal streams")
    require(not op.router.overlaps(op.x), "router overlaps x")
    require(math.isfinite(op.scale), f"scale {op.scale}")
    return count


def _match_magnitude(c: Checker, op: streams.MatchMagnitude) -> None:
    require(op.x.width == op.like.width, f"x has width {op.x.width}, like {op.like.width}")
    require(not op.x.overlaps(op.like), "like overlaps x")
    require(op.least > 0, f"least {op.least}")


def _gaussian_top_k(c: Checker, op: streams.GaussianTopK) -> None:
    require(math.isfinite(op.cutoff), f"cutoff {op.cutoff}")


RULES: dict[type[Op], Callable[[Checker, Any], None]] = {
    streams.Lookup: _lookup,
    streams.AddScale: _add_scale,
    streams.AltUpPredict: _predict,
    streams.AltUpCorrect: _correct,
    streams.MatchMagnitude: _match_magnitude,
    streams.GaussianTopK: _gaussian_top_k,
}
