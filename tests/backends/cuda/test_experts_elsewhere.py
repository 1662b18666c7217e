"""Mixtures some of whose experts another device has: what is not computed here reaches nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lacewing.backends.cuda.backend import CudaBackend
from lacewing.backends.cuda.device.device import Device
from tests import paged
from tests.backends.cpu.single_ops import Case
from tests.backends.cuda.nvidia import backend
from tests.backends.cuda.recording import RecordingDriver
from tests.backends.cuda.test_experts import MIXTURES, Mixture


def elsewhere(it: Mixture, tokens: int) -> Case:
    """So many tokens whose experts are all here, then as many whose first one another device has."""
    rng = np.random.default_rng(4)
    ids = np.stack([rng.permutation(it.experts)[: it.active] for _ in range(2 * tokens)])
    ids[tokens:, 0] = -1
    return it.given(ids)


def test_no_form_of_many_tokens_joins_experts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Float16 of pairs is made by pairs, and none by the activation, whose row has parts that another device's experts left."""
    monkeypatch.setattr("tests.backends.cpu.single_ops.check_program", lambda program: None)
    on = Device(RecordingDriver((9, 0)), 0)
    step = elsewhere(MIXTURES["plain"], 40).step(CudaBackend(on), 128)  # type: ignore[arg-type]  # any backend will do
    assert isinstance(on.driver, RecordingDriver)
    on.driver.launched.clear()
    paged.run(step, np.arange(40), [0] * 40, np.arange(40), [39])
    found = {name: values for name, *_, values in on.driver.launched}
    few_first, _, many, _ = np.frombuffer(found["wide_gated"][-1], np.int32)[-4:]
    assert few_first == many == 0
    lists = [int.from_bytes(values[2], "little") for name, *_, values in on.driver.launched if name == "half_rows"]
    assert len(lists) == 2 and all(lists)
    step.close()
    on.close()


@pytest.mark.nvidia
@pytest.mark.parametrize("number", [90, 89, 80])
@pytest.mark.parametrize("tokens", [3, 40])
@pytest.mark.parametrize("value", [np.nan, 1e25])  # which make NaN, and infinities when gate and up are multiplied
def test_what_an_earlier_run_left_of_experts_elsewhere_reaches_nothing(
    value: float, tokens: int, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.backends.cpu.single_ops.check_program", lambda program: None)
    monkeypatch.setattr(backend().device, "number", number)
    it = MIXTURES["plain"]
    one = elsewhere(it, tokens)
    wrong = one.x.copy()
    wrong[1:3, : it.width] = value

    def second_run(case: Case, first: int) -> np.ndarray:
        step, places = case.step(backend(), 128), np.arange(tokens)  # type: ignore[arg-type]  # any backend will do
        runs = [paged.run(step, places + begin, [0] * tokens, places, places).copy() for begin in (first, tokens)]
        step.close()
        assert np.isfinite(runs[0][:, : it.width]).all() == (case is one)
        return runs[1][:, : it.width]

    np.testing.assert_array_equal(second_run(replace(one, x=wrong), 0), second_run(one, tokens))
