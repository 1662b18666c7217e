"""Two devices together compute what one does: the reference backend with itself and with the processor, wherever it is cut."""

from __future__ import annotations

import numpy as np
import pytest

from lacewing.backends.batch import StepLimits
from lacewing.backends.cpu import CpuBackend
from lacewing.backends.reference.backend import ReferenceBackend
from lacewing.errors import BackendError, OptionError, OutOfMemoryError
from lacewing.offload.cut import cut_program
from lacewing.offload.step import OffloadBackend
from lacewing.program.ops import ExpertLinear, GatedActivation, Route
from tests.checkpoints import tiny
from tests.models.running import mapped_weights, open_step, run
from tests.offload.splits import IDS, cuts, mixed_run, open_split

EXPERTS = (Route, ExpertLinear, GatedActivation)


@pytest.mark.parametrize("name", ["llama", "gemma2", "deepseek2-lite"])
def test_every_cut(name, tmp_path):
    path = tiny(name, "gguf", tmp_path)
    spec, whole = open_step(path, 32)
    want = run(whole, IDS)
    backends = [ReferenceBackend(), CpuBackend(2)]
    for cut in cuts(spec.program):
        for order in (backends, backends[::-1]):
            step = open_split(path, spec, order, [0] * cut + [1] * (len(spec.program.ops) - cut))
            np.testing.assert_allclose(mixed_run(step), want, rtol=0, atol=1e-3 if name == "gemma2" else 1e-4, err_msg=f"{cut}")
            step.close()


@pytest.mark.parametrize("name", ["qwen3moe", "gpt-oss", "glm4moe"])
def test_experts_on_the_processor(name, tmp_path):
    """Two hand-overs a layer; routers are watched wherever they are."""
    path = tiny(name, "gguf", tmp_path)
    spec, whole = open_step(path, 32)
    devices = [int(isinstance(op, EXPERTS)) for op in spec.program.ops]
    step = open_split(path, spec, [ReferenceBackend(), CpuBackend(2)], devices)
    for each in (whole, step):
        each.watch_routes(True)
    np.testing.assert_allclose(run(step, IDS), run(whole, IDS), rtol=0, atol=1e-4)
    assert [routed.layer for routed in step.routes()] == [routed.layer for routed in whole.routes()]
    for found, wanted in zip(step.routes(), whole.routes(), strict=True):
        assert np.array_equal(found.ids, wanted.ids)
        np.testing.assert_allclose(found.probabilities, wanted.probabilities, atol=1e-5)
    step.close()


def halves(path, backends, slots=1):
    spec, _ = open_step(path, 32)
    cut = sorted(cuts(spec.program))[len(spec.program.ops) // 2]
    return spec, open_split(path, spec, backends, [0] * cut + [1] * (len(spec.program.ops) - cut), slots=slots)


def test_the_parts_of_a_processor_agree_bitwise(tmp_path):
    """Nothing is lost on the way, and the bytes of a slot are those of the whole."""
    path = tiny("gemma3", "gguf", tmp_path)
    _, whole = open_step(path, 32, CpuBackend(2), slots=2, chunk=16)
    _, step = halves(path, [CpuBackend(1), CpuBackend(2)], slots=2)
    assert np.array_equal(run(step, IDS, slot=1), run(whole, IDS, slot=1))
    assert isinstance(step, KeepsSlots) and step.kv_bytes == whole.kv_bytes
    kept = whole.read_slot(1, 7)
    assert np.array_equal(step.read_slot(1, 7), kept)
    step.write_slot(0, 7, kept)
    assert np.array_equal(run(step, IDS[7:], 7, slot=0), run(whole, IDS[7:], 7, slot=1))
    with pytest.raises(OptionError, match="7 positions"):
        step.write_slot(0, 7, kept[:-1])
    step.close()
    whole.close()


def test_not_all_keep_slots(tmp_path):
    _, step = halves(tiny("llama", "gguf", tmp_path), [ReferenceBackend(), CpuBackend(1)])
    assert not isinstance(step, KeepsSlots)
    step.close()


def test_closed_and_refused(tmp_path):
    _, step = halves(tiny("llama", "gguf", tmp_path), [CpuBackend(1), ReferenceBackend()])
    with pytest.raises(OptionError, match="token"):
        run(step, [100_000])
    run(step, IDS)  # goes on after a refusal
    for part in step.steps:
        with pytest.raises(BackendError, match="in stages"):
            run(part, IDS)
    step.close()
    step.close()
    with pytest.raises(OptionError, match="closed"):
        run(step, IDS)


class Full:
    """A device without memory."""

    name, copies_weights = "full", True

    def facts(self):
        raise AssertionError

    def compile(self, program, weights, limits, progress=None):
        raise OutOfMemoryError("the device is full")


class Counting(CpuBackend):
    """Remembers its steps."""

    made = ()

    def compile(self, program, weights, limits, progress=None):
        step = super().compile(program, weights, limits, progress)
        self.made = (*self.made, step)
        return step


def test_a_device_that_fails_leaves_nothing(tmp_path):
    path, processor = tiny("llama", "gguf", tmp_path), Counting(1)
    spec, _ = open_step(path, 32)
    devices = [0] * 7 + [1] * (len(spec.program.ops) - 7)
    backend = OffloadBackend([processor, Full()], cut_program(spec.program, devices))
    with pytest.raises(OutOfMemoryError, match="full"):
        backend.compile(spec.program, mapped_weights(dict(spec.tensors)), StepLimits(32, 16))
    (step,) = processor.made
    with pytest.raises(OptionError, match="closed"):
        step.begin(*[np.zeros(1, np.int32)] * 4)


def test_as_many_backends_as_parts(tmp_path):
    spec, _ = open_step(tiny("llama", "gguf", tmp_path), 32)
    with pytest.raises(BackendError, match="1 devices for 2 parts"):
        OffloadBackend([CpuBackend(1)], cut_program(spec.program, [0] * 7 + [1] * (len(spec.program.ops) - 7)))
