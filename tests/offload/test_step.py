"""Two devices together compute what one does: the reference backend with itself and with the CPU, wherever it is cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lacewing.backends.batch import Batch, StepLimits
from lacewing.backends.cpu import CpuBackend
from lacewing.backends.reference.backend import ReferenceBackend
from lacewing.errors import BackendError, Cancelled, OptionError, OutOfMemoryError
from lacewing.offload.cut import cut_program
from lacewing.offload.step import OffloadBackend
from lacewing.program.ops import Embed, ExpertLinear, GatedActivation, Route
from tests.checkpoints import tiny
from tests.models.running import mapped_weights, open_step, run
from tests.offload.splits import IDS, cuts, mixed_run, open_split
from tests.tolerance import SAME

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
def test_experts_on_the_cpu(name, tmp_path):
    """Two transfers a layer; routers are watched wherever they are."""
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


def halves(path, backends, rows=1):
    spec, _ = open_step(path, 32)
    cut = sorted(cuts(spec.program))[len(spec.program.ops) // 2]
    return spec, open_split(path, spec, backends, [0] * cut + [1] * (len(spec.program.ops) - cut), rows=rows)


def pages(step):
    """The bytes of row 1 of all groups."""
    return [step.read(index, [1]) for index in range(len(step.groups))]


@pytest.mark.parametrize("kind", ["cpu", "reference"])
def test_parts_agree_with_the_whole(kind, tmp_path):
    """Nothing is lost on the way, on the CPU not a bit, and the bytes of pages are those of the whole."""
    backends = [CpuBackend(1), CpuBackend(2)] if kind == "cpu" else [ReferenceBackend(False), ReferenceBackend(False)]
    path = tiny("gemma3", "gguf", tmp_path)
    _, whole = open_step(path, 32, backends[1], rows=2, chunk=16)
    _, step = halves(path, backends, rows=2)
    assert len(step.groups) == 2 and [len(part.groups) for part in step.steps] == [1, 2]  # windowed layers, and a full one
    SAME[kind](run(step, IDS, row=1), run(whole, IDS, row=1))
    if kind == "cpu":
        assert step.state_bytes == whole.state_bytes
    kept = pages(whole)
    for found, wanted in zip(pages(step), kept, strict=True):
        if kind == "cpu":
            assert np.array_equal(found, wanted)
        else:
            np.testing.assert_allclose(found.view(np.float16).astype(float), wanted.view(np.float16).astype(float), atol=1e-2)
    for index, data in enumerate(kept):
        step.write(index, [0], data)
        assert np.array_equal(step.read(index, [0]), data)
        step.copy(index, [(0, 1)])
        assert np.array_equal(step.read(index, [1]), data)
    SAME[kind](run(step, IDS[7:], 7, row=0), run(whole, IDS[7:], 7, row=1))
    with pytest.raises(OptionError, match="uint8 of shape"):
        step.write(0, [0], kept[0][:, :-1])
    step.close()
    whole.close()


@pytest.mark.parametrize("kind", ["cpu", "reference"])
def test_units_of_fixed_states(kind, tmp_path):
    """A convolution's units beside attention's pages: each part has those of its own layers, wherever it is cut."""
    backends = [CpuBackend(1), CpuBackend(2)] if kind == "cpu" else [ReferenceBackend(), ReferenceBackend()]
    path = tiny("lfm2", "gguf", tmp_path)
    spec, whole = open_step(path, 32, backends[1], chunk=16)
    assert whole.fixed == 1
    want = [run(whole, IDS[:6]), run(whole, IDS[6:7], 6), run(whole, IDS[7:], 7)]
    for cut in list(cuts(spec.program))[::3]:
        step = open_split(path, spec, backends, [0] * cut + [1] * (len(spec.program.ops) - cut))
        for found, expected in zip([run(step, IDS[:6]), run(step, IDS[6:7], 6), run(step, IDS[7:], 7)], want, strict=True):
            SAME[kind](found, expected)
        fixed = next(index for index, group in enumerate(step.groups) if not group.paged)
        units = step.read(fixed, [0, 1])
        SAME[kind](units.view(np.float32), whole.read(fixed, [0, 1]).view(np.float32))
        step.write(fixed, [1, 0], units)
        assert np.array_equal(step.read(fixed, [1, 0]), units)
        step.close()


def test_pages_grow_on_all_devices_or_on_none(tmp_path, monkeypatch):
    _, step = halves(tiny("llama", "gguf", tmp_path), [ReferenceBackend(), ReferenceBackend()])
    step.grow(0, 5)
    assert [part.sizes for part in step.steps] == [[5], [5]]

    def full(group, count):
        raise OutOfMemoryError("no memory left")

    monkeypatch.setattr(step.steps[1], "_grow", full)
    with pytest.raises(OutOfMemoryError):
        step.grow(0, 9)
    assert step.sizes == [5] and [part.sizes for part in step.steps] == [[5], [5]]
    step.close()


def test_a_run_is_aborted_between_stages(tmp_path, monkeypatch):
    _, step = halves(tiny("llama", "gguf", tmp_path), [ReferenceBackend(), ReferenceBackend()])
    stage = step.steps[0].stage
    monkeypatch.setattr(step.steps[0], "stage", lambda *arguments: (stage(*arguments), step.abort())[0])
    with pytest.raises(Cancelled):
        run(step, IDS)
    monkeypatch.undo()
    _, whole = open_step(tiny("llama", "gguf", tmp_path), 32)
    SAME["reference"](run(step, IDS), run(whole, IDS))
    step.close()


@pytest.mark.parametrize("kind", ["cpu", "reference"])
def test_embeddings_in_place_of_ids(kind, tmp_path):
    """Only the device of the embedding is told of them."""
    path, backends = tiny("llama", "gguf", tmp_path), [CpuBackend(1), CpuBackend(2)] if kind == "cpu" else [ReferenceBackend()] * 2
    _, step = halves(path, backends)
    _, whole = open_step(path, 32, backends[0])
    width = next(op.out.width for op in whole.program.ops if isinstance(op, Embed))
    values = np.random.default_rng(0).standard_normal((2, width)).astype(np.float32)
    mixed = replace(Batch.of([7, -1, -2, 9], 0, [0, 1, 2, 3]), embeddings=values)
    SAME[kind](step.run(mixed), whole.run(mixed))
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


class Full(ReferenceBackend):
    """A device without memory."""

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
    path, cpu = tiny("llama", "gguf", tmp_path), Counting(1)
    spec, _ = open_step(path, 32)
    devices = [0] * 7 + [1] * (len(spec.program.ops) - 7)
    backend = OffloadBackend([cpu, Full()], cut_program(spec.program, devices))
    with pytest.raises(OutOfMemoryError, match="full"):
        backend.compile(spec.program, mapped_weights(dict(spec.tensors)), StepLimits(32, 16))
    (step,) = cpu.made
    with pytest.raises(OptionError, match="closed"):
        step.begin(Batch.of([1], 0, [0]))


def test_as_many_backends_as_parts(tmp_path):
    spec, _ = open_step(tiny("llama", "gguf", tmp_path), 32)
    with pytest.raises(BackendError, match="1 devices for 2 parts"):
        OffloadBackend([CpuBackend(1)], cut_program(spec.program, [0] * 7 + [1] * (len(spec.program.ops) - 7)))
