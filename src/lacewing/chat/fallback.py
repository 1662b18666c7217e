"""When a GPU fails during an answer: the same model on the processor, if the person agrees. The conversation stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lacewing.chat import swap
from lacewing.chat.settings import PROCESSOR
from lacewing.errors import BackendError

if TYPE_CHECKING:
    from lacewing.chat.session import Session


def fall_back(session: Session, error: BackendError) -> list[str]:
    """Bring the session to the CPU backend; what a person should know of it. Raises the error again where that is not wanted."""
    failed = session.loaded
    if not failed.model.backend.copies_weights:
        raise error
    if not session.face.confirm(f"{error}\ngo on with {failed.short_name} on the processor?"):
        raise error
    lines = swap.change_model(session, failed.name, PROCESSOR)
    for each in [one for one in session.parked if one.model.backend.copies_weights]:  # they were on the device as well
        session.parked.remove(each)
        each.close()
    return [lines[0], "what was on the GPU is closed; the answer begins again"]
