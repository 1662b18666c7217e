"""Routing statistics as a table of text; the chat and `lacewing stats` show the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lacewing.chat.command import Table

if TYPE_CHECKING:
    from lacewing.engine.routing import LayerRouting

COLUMNS = 32
LEGEND = """\
top 1, top 10%: share of the busiest experts; bits: entropy, and its share of the maximum; CV: coefficient of variation
loss: E x sum of f P, 1 when even; reuse: experts that the token before used too
load, from the first expert to the last: · none, ░ under half an even share, ▒ about even, ▓ more, █ over three times"""
_SHADES = ((0.5, "\u2591"), (1.5, "\u2592"), (3.0, "\u2593"))


def shades(loads: Sequence[float]) -> str:
    """A character for each load, where 1 is an even share."""
    return "".join(_shade(load) for load in loads)


def _shade(load: float) -> str:
    if load == 0:
        return "\u00b7"
    return next((character for below, character in _SHADES if load < below), "\u2588")


def table(layers: Sequence[LayerRouting], *, sequences: bool = False, columns: int = COLUMNS) -> Table:
    """A row a layer, and the means. `sequences`: with the sequence-wise loss; `columns`: characters for the load, at most."""
    from lacewing.engine.routing import means

    rows = [_row(str(each.layer), vars(each), sequences, shades(each.heat(columns))) for each in layers]
    rows.append(_row("mean", means(layers), sequences, ""))
    losses = ("loss", "by seq.") if sequences else ("loss",)
    return Table(("layer", "top 1", "top 10%", "bits", "of max", "CV", *losses, "reuse", "load"), tuple(rows))


def _row(name: str, values: dict[str, float | None], sequences: bool, heat: str) -> tuple[str, ...]:
    def show(key: str, form: str) -> str:
        value = values[key]
        return "-" if value is None else format(value, form)

    losses = ("balance_loss", "sequence_loss") if sequences else ("balance_loss",)
    return (
        name,
        show("busiest", ".1%"),
        show("busiest_tenth", ".1%"),
        show("entropy_bits", ".2f"),
        show("entropy_share", ".1%"),
        show("variation", ".2f"),
        *(show(loss, ".3f") for loss in losses),
        show("reuse", ".1%"),
        heat,
    )
