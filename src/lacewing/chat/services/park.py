"""Parking: a model that is put aside for another one keeps its KV cache, so that going back to it is quick."""

from __future__ import annotations

import contextlib
from pathlib import Path

from lacewing.chat.session.models import Closed, OnDevice, Parked
from lacewing.chat.session.session import Session
from lacewing.errors import ModelFormatError

MAX_PARKED = 2  # models kept beside the current one


def replace_current(session: Session, target: OnDevice, *, keep: bool = True, was_eager: bool = False) -> None:
    """Make another model the current one. The one before is parked, or closed if it may not be kept or cannot be parked.

    Nothing fails here: whatever happens to the old model, the session has the new one. `was_eager`: the old model's weights
    were, before somebody made them lazy.
    """
    old, session.current = session.current, target
    if isinstance(old, Closed):
        old.was.close()
    elif not keep or not _park(session, old, was_eager):
        old.model.close()
    while len(session.parked) > MAX_PARKED:
        session.parked.pop().model.close()


def _park(session: Session, old: OnDevice, was_eager: bool) -> bool:
    """Whether it could be: its weights are lazy then."""
    model = old.model
    was_eager |= model.weights.residency == "eager"
    try:
        model.set_residency("lazy", force=True, reason="it was parked")
        model.weights.release()
    except Exception:  # a file that is gone, a device that is lost: the model is of no use any more
        return False
    session.parked.insert(0, Parked(old.formatter, old.name, model, old.routing, was_eager))
    return True


def drop_stale(session: Session, opened: OnDevice) -> None:
    """Close parked models whose file has become the one that was opened now."""
    for each in [each for each in session.parked if same_file(each, opened.model.path) and not usable(each)]:
        session.parked.remove(each)
        each.model.close()


def same_file(one: OnDevice | Parked | Closed, path: Path) -> bool:
    with contextlib.suppress(OSError):
        return one.info.checkpoint.path.samefile(path)
    return False


def usable(one: OnDevice | Parked) -> bool:
    """Whether the file of a model is still what it was opened from; eager weights too are of the file that was."""
    with contextlib.suppress(ModelFormatError):
        one.model.weights.check_files(eager=True)
        return True
    return False


def check_usable(one: Parked) -> None:
    """Raise ModelFormatError if a parked model's file has changed since."""
    try:
        one.model.weights.check_files()
    except ModelFormatError as error:
        raise ModelFormatError(one.model.path, f"{error.problem} (/model with its path does)") from None
