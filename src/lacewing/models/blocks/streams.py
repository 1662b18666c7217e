"""Several residual streams (AltUp): made of the embedding, predicted before each layer, corrected after it, merged at the end."""

from __future__ import annotations

from collections.abc import Callable

from lacewing.models.builder import Builder
from lacewing.models.config import AltUpConfig
from lacewing.program.ops import Buffer, Combine, View
from lacewing.program.stream_ops import AddScale, AltUpCorrect, AltUpPredict, MatchMagnitude

Branch = Callable[[Builder, int, View], None]  # of a layer and a view (T, D), to branch


def _streams(b: Builder) -> tuple[AltUpConfig, list[View]]:
    """The streams, (T, D) each, side by side."""
    altup = b.config.altup
    if altup is None:
        raise ValueError("the model has one residual stream")
    whole = Buffer("streams", altup.streams * b.config.width)
    return altup, [whole.view(stream * b.config.width, b.config.width) for stream in range(altup.streams)]


def begin_streams(b: Builder) -> None:
    """The first stream is x (T, D), the others products of it at its magnitude."""
    _, streams = _streams(b)
    b.ops.append(AddScale(b.x, None, streams[0]))
    for index, stream in enumerate(streams[1:]):
        b.project(b.x, f"altup_proj.{index}", stream)
        b.ops.append(MatchMagnitude(stream, b.x))


def predict(b: Builder, layer: int) -> View:
    """The active stream, once all are predicted."""
    altup, streams = _streams(b)
    active, count = streams[altup.active], altup.streams
    weight = b.weight(f"blk.{layer}.altup_predict_coef.weight", count * count, count)
    router = _router(b, layer, active)
    b.ops.append(AltUpPredict(active.buffer.view(), router, weight, 1 / b.config.width))
    return active


def _router(b: Builder, layer: int, x: View) -> View:
    altup, _ = _streams(b)
    router = Buffer("altup_router", altup.streams).view()
    b.norm(x, f"blk.{layer}.altup_router_norm", b.normed)
    b.linear(b.normed, layer, ("altup_router", router))
    return router


def correct(b: Builder, layer: int, branch: Branch) -> None:
    """All streams, by what the layer made of the active one, in x; then all but the first get what `branch` makes of the active."""
    altup, streams = _streams(b)
    active, name, width = streams[altup.active], f"blk.{layer}", b.config.width
    weight = b.weight(f"{name}.altup_correct_coef.weight", altup.streams, altup.streams)
    router = _router(b, layer, b.x)
    b.ops.append(AltUpCorrect(active.buffer.view(), router, b.x, weight, altup.active, 1 / width))
    if altup.scaled:
        b.ops.append(AddScale(active, None, b.normed, b.weight(f"{name}.altup_correct_scale.weight", width)))
    branch(b, layer, b.normed if altup.scaled else active)
    if altup.streams > 1:
        others = active.buffer.view(width)
        b.ops.append(AddScale(others, b.branch, others))


def end_streams(b: Builder) -> None:
    """The mean of the streams, all but the first multiplied and at its magnitude, normed, to hidden (T, D)."""
    altup, streams = _streams(b)
    count, width = altup.streams - 1, b.config.width
    merged = Buffer("merged", max(count, 1) * width)
    for index, stream in enumerate(streams[1:]):
        view = merged.view(index * width, width)
        b.project(stream, f"altup_unembd_proj.{index}", view)
        b.ops.append(MatchMagnitude(view, streams[0]))
    b.ops.append(Combine(merged.view(), None, b.x, count, streams[0]))
    # of a sum in place of a mean a norm leaves the same, but for eps
    b.norm(b.x, "output_norm", b.hidden, eps=b.config.eps * altup.streams**2)
