"""Opening a session, and going on with it on the CPU if a GPU fails during an answer."""

from __future__ import annotations

from functools import partial

from lacewing.api import Model
from lacewing.chat.services import swap
from lacewing.chat.session.events import Ui
from lacewing.chat.session.session import Session
from lacewing.chat.session.settings import CPU_OPTIONS, Settings
from lacewing.errors import BackendError
from lacewing.options import LoadOptions, Sampling
from lacewing.placement.info import open_headers
from lacewing.weights.memory import keep_large_blocks_apart


def open_session(name: str, options: LoadOptions, sampling: Sampling | None = None, ui: Ui | None = None) -> Session:
    """A session with a model, which is fetched when it is a name that is not here. Raises LacewingError."""
    ui = ui or Ui()
    keep_large_blocks_apart()
    path = swap.path_of(name, ui)
    model = Model(open_headers(path, options, ui.cancelled), ui.progress, cancelled=ui.cancelled)
    try:
        session = Session(model, Settings(sampling or Sampling()), ui=ui, name=name)
    except BaseException:
        model.close()
        raise
    session.options = options
    session.fall_back = partial(fall_back, session)
    return session


def fall_back(session: Session, error: BackendError) -> list[str]:
    """Bring the session to the CPU; what a person should know of it. Raises the error again if the person does not want that."""
    failed = session.loaded
    if not failed.model.backend.copies_weights:
        raise error
    if not session.ui.confirm(f"{error}\ncontinue with {failed.short_name} on the CPU?"):
        raise error
    lines = swap.change_model(session, failed.name, **CPU_OPTIONS)
    for each in [one for one in session.parked if one.model.backend.copies_weights]:  # they were on the device as well
        session.parked.remove(each)
        each.model.close()
    return [lines[0], "the models on the GPU were closed; the answer starts again"]
