"""Which models are here, and whether they would fit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lacewing import hub
from lacewing.chat.services.swap_plan import plan_swap
from lacewing.chat.session.models import Closed, OnDevice
from lacewing.chat.session.session import Session
from lacewing.errors import BackendError, Cancelled, LacewingError, OutOfMemoryError
from lacewing.options import format_bytes
from lacewing.placement.info import ModelInfo

_MOST = 60  # files that are looked at


def names(chat: Session | None = None) -> list[str]:
    """What /model may be given, for completion: names of ours, fetched ones, and checkpoints of this folder."""
    found = [*hub.NAMED, *(cached.name for cached in hub.list_models())]
    found += [str(path) for path in _nearby(Path())]
    return list(dict.fromkeys([*(["-"] if chat is not None and chat.parked else []), *found]))


def models(chat: Session) -> Iterator[tuple[str, str, str, str, str, str]]:
    """(mark, name, size, quant, architecture, fit) of each model that is here, and of known names that are not."""
    current = chat.current.info.checkpoint.path
    marks = {current.resolve(): "closed" if isinstance(chat.current, Closed) else "*"}
    marks |= {each.model.path.resolve(): "parked" for each in chat.parked}
    places = {path.resolve(): (path, path.name) for path in _nearby(current.parent)}
    places |= {path.resolve(): (path, str(path)) for path in _nearby(Path())}
    here = [(each.info.checkpoint.path, each.name) for each in (*chat.parked, chat.current)]
    places |= {path.resolve(): (path, name) for path, name in here}
    places |= {cached.path.resolve(): (cached.path, cached.name) for cached in hub.list_models()}
    for place, (path, name) in list(places.items())[:_MOST]:
        if chat.ui.cancelled():
            raise Cancelled("listing the models was cancelled")
        yield marks.get(place, ""), name, *_facts(chat, path)
    for name in sorted(set(hub.NAMED) - {cached.name for cached in hub.list_models()}):
        yield "", name, "", "", "", f"not fetched: {hub.NAMED[name].about}"


def _nearby(folder: Path) -> list[Path]:
    """Checkpoints in a folder; of a split one, the first part."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    later = [entry for entry in entries if "-of-" in entry.name and "-00001-of-" not in entry.name]
    files = [entry for entry in entries if entry.suffix == ".gguf" and os.path.isfile(entry) and entry not in later]
    return files + [entry for entry in entries if os.path.isfile(entry / "config.json")]


def _facts(chat: Session, path: Path) -> tuple[str, str, str, str]:
    """Size, quant, architecture, fit; the problem if it cannot be opened."""
    try:
        opened = ModelInfo(path, chat.options, warm=False)
    except LacewingError as error:
        return "", "", "", f"cannot be used: {error}"
    sizes: dict[str, int] = {}
    for tensor in opened.spec.tensors.values():
        sizes[tensor.quant.name] = sizes.get(tensor.quant.name, 0) + tensor.nbytes
    total = sum(sizes.values())
    facts = format_bytes(total), max(sizes, key=lambda name: sizes[name]), opened.spec.architecture
    try:
        current = chat.current if isinstance(chat.current, OnDevice) else None
        return *facts, f"fits ({plan_swap(opened, current, chat.parked).placement.summary})"
    except (BackendError, OutOfMemoryError) as error:
        return *facts, f"does not fit: {error}"
