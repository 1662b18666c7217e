"""Fetched models: getting one, and the list."""

from __future__ import annotations

from pathlib import Path

from lacewing import hub
from lacewing.cli.progress import Reporter
from lacewing.options import format_bytes


def fetched(name: str) -> hub.Cached:
    """The model of that name, fetched now unless it is here."""
    from lacewing.hub.pull import pull

    with Reporter(patience=0) as progress:
        return pull(name, progress)


def path_of(name: str) -> Path:
    """The path to open; a model's name is fetched first when it is not here."""
    if hub.to_fetch(name):
        return fetched(name).path
    return hub.resolve(name)


def show() -> None:
    """A line for each fetched model, and for each known name that is not."""
    here = hub.list_models()
    for cached in here:
        print(f"{cached.name}\t{format_bytes(cached.nbytes)}\t{cached.path}")
    for name in sorted(set(hub.NAMED) - {cached.name for cached in here}):
        print(f"{name}\tnot fetched\t{hub.NAMED[name].about}")
