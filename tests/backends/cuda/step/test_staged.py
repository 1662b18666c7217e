"""Stages of a split program on the driver that records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lacewing.backends.cpu import CpuBackend
from lacewing.backends.cuda.backend import CudaBackend
from lacewing.backends.cuda.device.device import Device
from tests.backends.cuda.recording import RecordingDriver
from tests.checkpoints import tiny
from tests.models.running import open_step, run
from tests.offload.splits import cuts, open_split


def test_every_stage_of_a_token_becomes_a_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many stages there are: a mixture with 48 layers has more of them than graphs of a whole model are kept."""
    monkeypatch.setattr("lacewing.backends.cuda.step.replay.MOST_GRAPHS", 1)
    path, driver = tiny("llama", "gguf", tmp_path), RecordingDriver()
    spec, whole = open_step(path, 32)
    whole.close()
    places = set(cuts(spec.program))
    devices = [sum(place <= index for place in places) % 2 for index in range(len(spec.program.ops))]
    step = open_split(path, spec, [CudaBackend(Device(driver, 0)), CpuBackend(1)], devices)
    assert len({each.stage for each in step.cut.schedule if each.device == 0}) > 2
    single, launch = [0], driver.launch

    def counted(*what: Any) -> None:
        single[0] += 1
        launch(*what)

    driver.launch = counted  # type: ignore[method-assign]
    for position in (4, 5):
        run(step, [7], position)
    assert single[0] > 0
    single[0] = 0
    driver.launched.clear()
    run(step, [7], 6)
    assert single[0] == 0 and len(driver.launched) > 2
    step.close()
