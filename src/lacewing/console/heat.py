"""Routing statistics as a table of text; the chat and `lacewing stats` show the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lacewing.console.output import Table

if TYPE_CHECKING:
    from lacewing.engine.routing import LayerRouting, RoutingStatistics

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


@dataclass(frozen=True)
class Cell:
    """An expert, or some neighbours, in one layer or some. `level`: an index into the characters of `shades`."""

    character: str
    level: int
    newest: bool  # the last token used one of them


def heat_map(statistics: RoutingStatistics, columns: int, rows: int) -> list[tuple[str, list[Cell]]]:
    """A row for each layer with its cells, at most so many of both; where there are more layers, neighbours share a row."""
    layers, newest = statistics.layers(), statistics.newest()
    run = max(1, -(-len(layers) // rows))
    return [_heat_row(layers[at : at + run], newest, columns) for at in range(0, len(layers), run)]


def _heat_row(group: Sequence[LayerRouting], newest: Mapping[int, frozenset[int]], columns: int) -> tuple[str, list[Cell]]:
    experts = max(each.experts for each in group)
    width = -(-experts // columns)  # experts of a cell
    heats = [each.heat(columns) for each in group]
    used = {expert // width for each in group for expert in newest.get(each.layer, ())}
    loads = [[heat[at] for heat in heats if at < len(heat)] for at in range(max(map(len, heats)))]
    name = f"{group[0].layer}" if len(group) == 1 else f"{group[0].layer}-{group[-1].layer}"
    return name, [_cell(sum(load) / len(load), at in used) for at, load in enumerate(loads)]


def _cell(load: float, newest: bool) -> Cell:
    level = 0 if load == 0 else next((level for level, (below, _) in enumerate(_SHADES, 1) if load < below), len(_SHADES) + 1)
    return Cell(_shade(load), level, newest)


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
