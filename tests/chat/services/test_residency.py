"""/lazy and /eager: weights change their place, and what fails or is cancelled changes nothing."""

import numpy as np
import pytest

from lacewing.chat.services.evict import change_residency
from lacewing.errors import (
    Cancelled,
    LacewingError,
    OutOfMemoryError,
)
from lacewing.weights.machine import Machine
from tests.chat.conftest import say
from tests.chat.faults import cancelling


def test_lazy_and_eager(start, monkeypatch):
    session = start(residency="eager")
    say(session, "Hello")
    before = session.model.engine.logits([1, 2, 3]).copy()
    steps = []
    session.ui.progress = lambda what, done, total: steps.append((what, done, total))
    assert "eager -> lazy" in change_residency(session, "lazy")[0]
    assert np.array_equal(session.model.engine.logits([1, 2, 3]), before)
    with cancelling(session, 1), pytest.raises(Cancelled):
        change_residency(session, "eager")
    assert session.model.weights.residency == "lazy" and session.model.weights.anonymous_bytes == 0
    steps.clear()
    assert "RAM" in change_residency(session, "eager")[0]
    assert steps[-1] == ("reading weights", session.model.weights.nbytes, session.model.weights.nbytes)
    assert change_residency(session, "eager") == ["the weights are already eager"]
    change_residency(session, "lazy")
    monkeypatch.setattr("lacewing.weights.this_machine", lambda: Machine(2**34, -(2**25), "nothing"))
    with pytest.raises(OutOfMemoryError, match="nothing was changed"):
        change_residency(session, "eager")
    assert session.model.weights.residency == "lazy"
    change_residency(session, "eager", force=True)
    assert session.model.weights.residency == "eager"
    with pytest.raises(LacewingError, match="must be lazy, eager or streamed"):
        change_residency(session, "auto")
