"""Lazy and eager by way of a model: what is interrupted, and what other threads see."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import lacewing


def test_an_interrupt_after_the_weights_have_moved(tiny_path, monkeypatch):
    """The step would go on with the bytes of before, and the model take the new residency for the one that it has."""

    def interrupt(*_):
        raise KeyboardInterrupt

    with lacewing.load(tiny_path, backend="cpu", residency="lazy", threads=2, context=64) as model:
        before = model.logits([1, 2, 3, 4])
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("lacewing.weights.weight.release", interrupt)
            model.set_residency("eager")
        assert model.weights.residency == model.plan.residency == "lazy"
        assert model.memory_bytes == model.step.host_bytes
        assert np.array_equal(model.logits([1, 2, 3, 4]), before)
        model.set_residency("eager")
        assert np.array_equal(model.logits([1, 2, 3, 4]), before)


def test_the_model_runs_while_its_weights_are_read(tiny_path):
    """Who streams an answer waits for the change alone, not for the disk."""
    ran = []

    def read(what, done, total):
        if not ran:
            runner = threading.Thread(target=lambda: ran.append(model.logits([1, 2, 3, 4])))
            runner.start()
            runner.join(30)
            assert not runner.is_alive(), "it waits until the weights have been read"

    with lacewing.load(tiny_path, backend="cpu", residency="lazy", threads=2, context=64) as model:
        before = model.logits([1, 2, 3, 4])
        model.set_residency("eager", read)
        assert model.weights.residency == "eager"
        assert np.array_equal(ran[0], before) and np.array_equal(model.logits([1, 2, 3, 4]), before)
