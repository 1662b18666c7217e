"""What an op uses and what it changes, whatever its kind."""

from __future__ import annotations

from dataclasses import fields

from lacewing.program import ops
from lacewing.program.ops import Op, View

_WEIGHTS = ("weight", "weights", "bias", "biases", "sinks")  # fields of ops that name weights


def weights_of(op: Op) -> tuple[str, ...]:
    """The names of the weights that an op uses."""
    found: list[str] = []
    for each in fields(op):
        value = getattr(op, each.name) if each.name in _WEIGHTS else None
        found += [name for name in (value if isinstance(value, tuple) else (value,)) if isinstance(name, str)]
    return tuple(found)


def changed(op: Op) -> list[View]:
    """All that an op writes; a norm with `add` changes its x too."""
    return op.views(op.writes) + ([op.x] if isinstance(op, ops.Norm) and op.add is not None else [])
