"""Whoever cancels does not wait for work that cannot be interrupted; the old model is whole at once."""

import pkgutil
import threading

import pytest

from lacewing.chat.services.swap import change_model
from lacewing.errors import Cancelled
from tests.chat.conftest import say


class Stuck:
    """Work that hangs until it is let go; `cancelled` is true from then on."""

    def __init__(self):
        self.reached, self.release = threading.Event(), threading.Event()

    def cancelled(self):
        return self.reached.is_set()

    def before(self, function):
        def work(*arguments, **options):
            if threading.current_thread() is not threading.main_thread():
                self.reached.set()
                assert self.release.wait(60)
            return function(*arguments, **options)

        return work


@pytest.fixture
def stuck():
    work = Stuck()
    yield work
    work.release.set()


@pytest.mark.parametrize(
    "place",
    [
        "lacewing.formats.open_checkpoint",
        "lacewing.models.open_model",
        "lacewing.text.tokenizer.Tokenizer.warm",
        "lacewing.text.template.ChatTemplate.from_checkpoint",
        "lacewing.formats.read._read_chunk",
    ],
)
def test_opening_that_hangs(place, stuck, start, paths, monkeypatch):
    session = start(residency="lazy")
    first = say(session, "Hello")
    before = session.loaded, list(session.model.engine.cached)
    monkeypatch.setattr(place, stuck.before(pkgutil.resolve_name(place)))
    session.ui.cancelled = stuck.cancelled
    with pytest.raises(Cancelled):
        change_model(session, str(paths["gemma"]), residency="eager")
    assert not stuck.release.is_set() and stuck.reached.is_set()  # it hangs still
    monkeypatch.undo()
    session.ui.cancelled = lambda: False
    assert (session.loaded, session.model.engine.cached) == before and not session.parked
    list(session.retry())
    assert session.messages[-1]["content"] == first
