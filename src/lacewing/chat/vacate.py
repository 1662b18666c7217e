"""A GPU has no room for two large models: the current one leaves it for the next, and comes back if the change fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lacewing.api import CHUNK, Opened
from lacewing.backends.base import HasMemory

if TYPE_CHECKING:
    from lacewing.chat.session import Session

_SHARE = 0.9  # of what a GPU has free; as `auto` reckons


@contextlib.contextmanager
def vacated(session: Session, opened: Opened, notices: list[str]) -> Iterator[None]:
    """Parked models on the GPU are closed, and the current one leaves it, as far as the next one needs their room there."""
    backend, current = session.model.backend, session.loaded
    if not isinstance(backend, HasMemory) or opened.options.backend not in ("auto", backend.name):
        yield
        return
    needs = opened.needs(opened.spec.sizes.weight_bytes, CHUNK)
    needed = needs.weight_bytes + needs.fixed_bytes

    def short() -> bool:
        room = backend.room_bytes()
        return room is not None and needed > _SHARE * room

    for each in [one for one in session.parked if isinstance(one.model.backend, HasMemory)]:
        if short():
            session.parked.remove(each)
            each.close()
            notices.append(f"there was no room on the GPU beside {each.short_name}, which was parked: it is closed")
    if not short():
        yield
        return
    current.model.close()
    try:
        yield
    except BaseException:
        current.model.return_to_device(session.face.progress)
        raise
