"""A GPU has no room for two large models: the current one leaves it for the next, and comes back if the change fails.

Where the GPU does not take it back, because it is lost or others have filled it, it goes on with the processor, and says so.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from lacewing.api import Model
from lacewing.chat.session.formatter import Loaded
from lacewing.chat.session.session import Session
from lacewing.chat.session.settings import PROCESSOR
from lacewing.errors import BackendError, OutOfMemoryError
from lacewing.placement.info import CHUNK, ModelInfo

_SHARE = 0.9  # of what a GPU has free; as `auto` reckons


@contextlib.contextmanager
def vacated(session: Session, opened: ModelInfo, notices: list[str]) -> Iterator[None]:
    """Parked models on the GPU are closed, and the current one leaves it, as far as the next one needs their room there."""
    backend, current = session.model.backend, session.loaded
    if not backend.copies_weights or opened.options.backend not in ("auto", backend.name):
        yield
        return
    needs = opened.needs(opened.spec.sizes.weight_bytes, CHUNK)
    needed = needs.device_bytes

    def short() -> bool:
        room = backend.room_bytes()
        return room is not None and needed > _SHARE * room

    for each in [one for one in session.parked if one.model.backend.copies_weights]:
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
        _come_back(session, current)
        raise


def _come_back(session: Session, current: Loaded) -> None:
    try:
        current.model.return_to_device(session.face.progress)
    except (BackendError, OutOfMemoryError) as error:
        current.close()
        opened = ModelInfo(current.model.path, dataclasses.replace(current.model.options, **PROCESSOR))
        session.loaded = Loaded(Model(opened, session.face.progress), current.voice, current.name)
        session.notices.append(f"{current.short_name} could not go back to the GPU ({error}); it is on the processor now")
