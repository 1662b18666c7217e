"""A GPU has no room for two large models: the current one leaves it for the next, and comes back if the change fails.

If the GPU does not take it back, because it is lost or others have filled it, it goes on with the CPU, and says so. If that fails
as well, whatever the reason, the session has it as `Closed`: the conversation stays, and /model loads it again or another one.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from lacewing.api import Model
from lacewing.chat.session.models import Closed, OnDevice, Parked, reason
from lacewing.chat.session.session import Session
from lacewing.chat.session.settings import CPU_OPTIONS
from lacewing.errors import ModelFormatError
from lacewing.placement.info import ModelInfo
from lacewing.placement.place import GPU_SHARE, Placement


@contextlib.contextmanager
def evicted(session: Session, placement: Placement, notices: list[str]) -> Iterator[None]:
    """Parked models on the GPU are closed, and the current one leaves it, as far as the next one needs their room there."""
    on_gpu = [one for one in (session.current, *session.parked) if not isinstance(one, Closed) and one.model.device_bytes]
    if not on_gpu or placement.gpu is None:
        yield
        return
    backend, needed = on_gpu[0].model.backend, placement.device_bytes

    def short() -> bool:
        room = backend.room_bytes()
        return room is not None and needed > GPU_SHARE * room

    for each in [one for one in on_gpu if isinstance(one, Parked)]:
        if short():
            session.parked.remove(each)
            each.model.close()
            notices.append(f"the parked model {each.short_name} was closed to make room on the GPU")
    current = on_gpu[0]
    if not isinstance(current, OnDevice) or not short():
        yield
        return
    session.current = closed = Closed(current.formatter, current.name, current.model, "it left the GPU for another model")
    try:
        current.model.close()
        yield
    except BaseException:
        _bring_back(session, closed)
        raise


def _bring_back(session: Session, closed: Closed) -> None:
    """To the GPU, else to the CPU, else it stays closed. A file that has become another one is not read with the old headers."""
    model, progress = closed.was, session.ui.progress
    try:
        model.return_to_device(progress)
        session.current = OnDevice(closed.formatter, closed.name, model)
    except ModelFormatError as error:
        _stay_closed(session, closed, reason(error))
    except Exception as error:  # drivers raise what they like
        model.close()
        try:
            info = ModelInfo(model.path, dataclasses.replace(model.options, **CPU_OPTIONS))
            session.current = OnDevice(closed.formatter, closed.name, Model(info, progress))
            session.notices.append(f"{closed.short_name} could not go back to the GPU ({reason(error)}); it is on the CPU now")
        except Exception as second:
            _stay_closed(session, closed, f"it could not go back to the GPU ({reason(error)}), nor to the CPU ({reason(second)})")


def _stay_closed(session: Session, closed: Closed, problem: str) -> None:
    closed.problem = problem
    session.notices.append(str(closed.error))
