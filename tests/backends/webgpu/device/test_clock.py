"""Kernels timed by the device's clock, and the table that `lacewing bench --profile` makes of them."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lacewing.backends.webgpu.device.clock import Clock
from lacewing.backends.webgpu.device.device import Slice
from lacewing.backends.webgpu.kernels import shader
from lacewing.cli import main
from lacewing.errors import BackendError, OptionError
from tests.backends.webgpu.single_ops import CODES, backend
from tests.checkpoints import prompt_of, tiny
from tests.models.running import open_step, run


def test_a_token_and_a_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kernel of the run once, what it reads, and nothing that a later run would notice."""
    monkeypatch.setattr("lacewing.backends.webgpu.device.clock.SECONDS", 0.0)
    device = backend().device
    _, opened = open_step(tiny("qwen3moe", "gguf", tmp_path, "Q8_0"), 64, backend(), chunk=64)
    step: Any = opened
    assert step.can_profile
    expected, held = run(step, prompt_of("qwen3moe", 20)), device.allocated
    read = {}
    for tokens in (1, 40):
        kernels = {one.name: one for one in step.profile(tokens, 20)}
        assert all(one.seconds >= 0 for one in kernels.values()) and sum(one.seconds for one in kernels.values()) > 0
        assert [one.seconds for one in kernels.values()] == sorted((one.seconds for one in kernels.values()), reverse=True)
        assert kernels["embed"].nbytes == 0 and kernels["route"].nbytes == 0
        assert kernels["choice"].calls == 2 if tokens == 1 else "choice" not in kernels
        read[tokens] = sum(one.nbytes for one in kernels.values() if one.name.startswith("expert_"))
    assert 0 < read[1] < read[40] and device.allocated == held  # one token reads the experts that it chooses
    again = run(step, prompt_of("qwen3moe", 20)[10:], 10)  # the pages are whole
    np.testing.assert_allclose(again, expected[10:], rtol=0, atol=1e-5)
    with pytest.raises(OptionError, match="position"):
        step.profile(1, 64)
    step.close()


@pytest.mark.parametrize("tokens", [1, 8])
def test_a_model_with_units(tokens: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are timed with two units that are nobody's."""
    monkeypatch.setattr("lacewing.backends.webgpu.device.clock.SECONDS", 0.0)
    _, opened = open_step(tiny("lfm2", "gguf", tmp_path), 64, backend(), chunk=64)
    step: Any = opened
    ids, sizes = prompt_of("lfm2", 20), list(step.sizes)
    run(step, ids[:12])
    expected = run(step, ids[12:], 12)
    assert "short_convolution" in {one.name for one in step.profile(tokens, 12)}
    run(step, ids[:12])
    np.testing.assert_allclose(run(step, ids[12:], 12), expected, rtol=0, atol=1e-5)
    assert step.sizes == sizes
    step.close()


def test_what_takes_longer_takes_longer() -> None:
    """The clock's ticks are times: sixty passes over the same bytes take more than one, and not more than went by."""
    device = backend(CODES).device
    clock, buffers = Clock(device), [device.buffer(2**22, "a copy") for _ in range(2)]
    pipeline = device.pipeline(shader("copy"), "copy")
    group = device.bind(pipeline, [Slice(buffer, 0, 2**22) for buffer in buffers])
    one = (pipeline.handle, group._internal, 64, 1, 1)
    began = time.perf_counter()
    seconds = clock.often([[one], [one] * 60])
    assert 0 < 2 * seconds[0] < seconds[1] < time.perf_counter() - began
    clock.close()
    for buffer in buffers:
        device.free(buffer)


def test_the_rate_of_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lacewing.backends.webgpu.device.clock.SECONDS", 0.0)
    monkeypatch.setattr("lacewing.backends.webgpu.device.clock.COPY_BYTES", 2**22)
    device = backend(CODES).device
    held, clock = device.allocated, Clock(device)
    assert 1e7 < clock.copy_rate() < 1e14
    clock.close()
    assert device.allocated == held
    monkeypatch.setattr(device, "features", frozenset())
    with pytest.raises(BackendError, match="no clock"):
        Clock(device)


def test_bench(tiny_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("lacewing.backends.webgpu.device.clock.SECONDS", 0.0)
    monkeypatch.setattr("lacewing.backends.webgpu.device.clock.COPY_BYTES", 2**22)
    monkeypatch.setenv("LACEWING_WEBGPU_CHECKS", "1")

    def bench(*words: str) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["lacewing", "bench", str(tiny_path), "-p", "20", "-n", "2", "-r", "1", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        found = capsys.readouterr()
        return ended.value.code or 0, found.out, found.err

    code, out, _ = bench("--backend", "webgpu", "--profile", "--json")
    report = json.loads(out)
    assert code == 0 and report["device"] and report["profile"]["copy_gigabytes_per_second"] > 0
    (logits,) = [one for one in report["profile"]["token"] if one["kernel"] == "logits"]
    assert logits["calls"] == 1 and logits["bytes"] > 0 and logits["seconds"] > 0
    assert {one["kernel"] for one in report["profile"]["prompt"]} >= {"embed", "logits", "heads"}
    code, out, _ = bench("--backend", "webgpu", "--profile")
    assert code == 0 and "a token at position 20: " in out and "20 tokens of a prompt: " in out and "of a copy" in out
    assert report["device"] in out and " threads" not in out
    code, _, err = bench("--backend", "cpu", "--profile")
    assert code == 2 and "--profile needs a GPU" in err
