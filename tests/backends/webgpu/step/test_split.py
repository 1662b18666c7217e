"""A GPU and the processor share a model: wherever it is cut, logits are those of the reference backend."""

from __future__ import annotations

import numpy as np
import pytest

from lacewing.backends.batch import StepLimits
from lacewing.backends.cpu import CpuBackend
from lacewing.backends.gpu.conversion import weight_bytes
from lacewing.backends.webgpu.backend import WebGPUBackend
from lacewing.backends.webgpu.device.raw import Readback
from lacewing.backends.webgpu.weights.matrices import Uploader
from lacewing.errors import BackendError, OptionError, OutOfMemoryError
from lacewing.models import ModelSpec
from lacewing.offload.cache import ExpertCacheBackend
from lacewing.offload.cut import cut_program
from lacewing.offload.experts import resident_specs
from lacewing.offload.plan import GPU, HOST, DeviceLoad, MemoryBudget, OffloadLevel, OffloadPlanner, Target, plan_offload
from lacewing.offload.step import OffloadBackend
from lacewing.program.program import Program
from lacewing.quants import by_name
from lacewing.weights import WeightStore
from tests import paged
from tests.backends.webgpu.single_ops import CODES, FLOATS, backend
from tests.checkpoints import tiny
from tests.models.running import MappedWeight, mapped_weights, open_step, run
from tests.offload.splits import IDS, cuts, mixed_run, open_split
from tests.paged import with_pages

CONTEXT, CHUNK = 32, 16


def devices_of_cut(program, cut):
    return [0] * cut + [1] * (len(program.ops) - cut)


SLOW = [pytest.param(name, 1, marks=pytest.mark.slow) for name in ("qwen3moe", "deepseek2-lite", "gemma3")]


@pytest.mark.parametrize(("name", "every"), [("llama", 1), ("qwen3moe", 4), ("deepseek2-lite", 9), ("gemma3", 15), *SLOW])
def test_every_cut(name, every, tmp_path):
    """Float weights and float activations; both orders take turns."""
    path = tiny(name, "gguf", tmp_path)
    spec, whole = open_step(path, CONTEXT)
    want, gpu = run(whole, IDS), backend(FLOATS)
    held = gpu.device.allocated
    for number, cut in enumerate([*cuts(spec.program)][::every]):
        order = [gpu, CpuBackend(1)] if number % 2 else [CpuBackend(1), gpu]
        step = open_split(path, spec, order, devices_of_cut(spec.program, cut))
        np.testing.assert_allclose(mixed_run(step), want, rtol=0, atol=1e-4, err_msg=f"cut at {cut}")
        step.close()
    assert gpu.device.allocated == held


def target(gpu: WebGPUBackend, spec: ModelSpec, chunk: int = CHUNK) -> Target:
    """What parts of the model take on the GPU."""

    def load(program: Program) -> DeviceLoad:
        limits = StepLimits(CONTEXT, chunk)
        memory = gpu.memory(program, resident_specs(program, spec.tensors), limits)
        pages = zip(program.groups, memory.group_bytes, strict=True)
        states = sum(group.live(CONTEXT, chunk) * nbytes for group, nbytes in pages)
        return DeviceLoad(memory.weight_bytes, states, memory.buffer_bytes + memory.staging_bytes)

    return Target(load, frozenset(range(9)))


@pytest.mark.parametrize("name", ["llama", "qwen3moe", "gpt-oss", "glm4moe"])
def test_every_way_to_share_out(name, tmp_path):
    """What the plan can come to: the first layers, or the experts of the first mixtures, on the CPU; routers are watched."""
    path = tiny(name, "gguf", tmp_path)
    spec, whole = open_step(path, CONTEXT)
    whole.watch_routes(True)
    want, gpu = run(whole, IDS), backend(FLOATS)
    sharing = OffloadPlanner(spec.program, Target(target(gpu, spec).load))
    for level in sharing.levels()[1:]:
        parts = cut_program(*sharing.assign(level))
        _, step = open_step(path, CONTEXT, OffloadBackend([gpu, CpuBackend(1)], parts), chunk=CHUNK)
        step.watch_routes(True)
        np.testing.assert_allclose(run(step, IDS), want, rtol=0, atol=1e-4, err_msg=str(level))
        assert [routed.layer for routed in step.routes()] == [routed.layer for routed in whole.routes()]
        for found, wanted in zip(step.routes(), whole.routes(), strict=True):
            assert np.array_equal(found.ids, wanted.ids)
        step.watch_routes(False)
        assert step.routes() == []
        one = run(step, IDS[:1], 0)  # few tokens take other kernels
        np.testing.assert_allclose(one, want[:1], rtol=0, atol=1e-4)
        step.close()


def test_a_share_by_room(tmp_path):
    """Quants whose activations become bytes on both devices; the GPU never gets what was not planned."""
    path = tiny("qwen3moe", "gguf", tmp_path, quant="Q8_0")
    spec, whole = open_step(path, CONTEXT)
    gpu = backend(CODES)
    room = MemoryBudget(OffloadPlanner(spec.program, Target(target(gpu, spec).load)).load(OffloadLevel(0, 1)).nbytes, "the test")
    found = plan_offload(spec.program, Target(target(gpu, spec).load), room)
    assert found is not None and (found.level.host_layers, found.level.host_experts, found.mixtures) == (0, 1, 2)
    parts = cut_program(found.program, found.devices)
    names = {name for name in parts.parts[GPU].program.weights if "exps" in name}
    assert names == {f"blk.1.ffn_{kind}_exps.weight" for kind in ("gate", "up", "down")}
    assert parts.parts[HOST].program.states == ()
    _, step = open_step(path, CONTEXT, OffloadBackend([gpu, CpuBackend(1)], parts), chunk=CHUNK)
    want, got = run(whole, IDS), run(step, IDS)
    assert ((got - want) ** 2).sum() / (want**2).sum() < 5e-3
    step.close()


def test_residency_of_the_processors_part(tmp_path):
    """Lazy, eager and lazy again while it lives: the same bits; only its own weights become eager."""
    path = tiny("llama", "gguf", tmp_path, quant="Q4_0")
    spec, _ = open_step(path, CONTEXT)
    weights = WeightStore(spec.tensors)
    sharing = OffloadPlanner(spec.program, target(backend(), spec))
    parts = cut_program(*sharing.assign(OffloadLevel(1)))
    shared = OffloadBackend([backend(), CpuBackend(2)], parts)
    step = with_pages(shared.compile(sharing.program, weights, StepLimits(CONTEXT, CHUNK)))
    host = set(parts.parts[HOST].program.weights)
    weights.keep(host)
    lazy = run(step, IDS)
    weights.set_residency("eager")
    step.rebind()
    assert 0 < weights.anonymous_bytes < weights.nbytes
    assert weights.anonymous_bytes == sum({spec.tensors[name].ranges: spec.tensors[name].nbytes for name in host}.values())
    assert np.array_equal(run(step, IDS), lazy)
    weights.set_residency("lazy")
    step.rebind()
    assert np.array_equal(run(step, IDS), lazy) and step.host_bytes < step.state_bytes + step.buffer_bytes
    step.close()
    weights.close()


def test_pages_are_those_of_one_device(tmp_path):
    """The KV cache moves between a shared model and one that the CPU has as a whole; pages grow on both devices or on none."""
    path = tiny("llama", "gguf", tmp_path, quant="Q8_0")
    spec, whole = open_step(path, CONTEXT, CpuBackend(1), rows=2, chunk=CHUNK)
    cut, gpu = [*cuts(spec.program)][11], backend()
    step = open_split(path, spec, [CpuBackend(1), gpu], devices_of_cut(spec.program, cut), rows=2)
    run(whole, IDS[:7], row=0)
    kept = whole.read(0, [0])
    step.write(0, [1], kept)
    assert np.array_equal(step.read(0, [1]), kept)
    want, got = run(whole, IDS[7:], 7, row=0), run(step, IDS[7:], 7, row=1)
    assert ((got - want) ** 2).sum() / (want**2).sum() < 5e-3
    held = gpu.device.allocated
    step.grow(0, 9)
    assert gpu.device.allocated > held and np.array_equal(run(step, IDS[7:], 7, row=1), got)
    with pytest.raises(OutOfMemoryError, match="pages of"):
        step.grow(0, 2**40)
    assert step.sizes == [9] and np.array_equal(run(step, IDS[7:], 7, row=1), got)
    step.close()
    whole.close()


def test_nothing_leaks_where_memory_ends(tmp_path, monkeypatch):
    path, gpu = tiny("llama", "gguf", tmp_path), backend()
    spec, _ = open_step(path, CONTEXT)
    parts = cut_program(spec.program, devices_of_cut(spec.program, [*cuts(spec.program)][9]))
    held, make, left = gpu.device.allocated, gpu.device.buffer, [12]

    def short(size, label, usage=None):
        left[0] -= 1
        if left[0] < 0:
            raise OutOfMemoryError("the GPU has no memory left")
        return make(size, label, usage)

    monkeypatch.setattr(gpu.device, "buffer", short)
    for backends in ([gpu, CpuBackend(1)], [CpuBackend(1), gpu]):
        left[0] = 12
        with pytest.raises(OutOfMemoryError, match="no memory left"):
            OffloadBackend(backends, parts).compile(spec.program, mapped_weights(dict(spec.tensors)), StepLimits(CONTEXT, CHUNK))
        assert gpu.device.allocated == held


def test_a_part_alone_and_a_closed_one(tmp_path):
    path, gpu = tiny("llama", "gguf", tmp_path), backend()
    spec, _ = open_step(path, CONTEXT)
    held = gpu.device.allocated
    step = open_split(path, spec, [gpu, CpuBackend(1)], devices_of_cut(spec.program, [*cuts(spec.program)][9]))
    with pytest.raises(BackendError, match="in stages"):
        run(step.steps[0], IDS)
    with pytest.raises(OptionError, match="token"):
        run(step, [100_000])
    many = run(step, IDS[:3])
    assert run(step, IDS[3:4], 3).shape == many[:1].shape
    step.close()
    step.close()
    assert gpu.device.allocated == held
    with pytest.raises(OptionError, match="closed"):
        run(step, IDS)


@pytest.mark.parametrize("quant", ["F32", "F16", "Q4_0", "Q8_0", "Q4_K", "Q6_K", "IQ2_XXS"])
def test_sizes_told_from_headers(quant, tmp_path):
    """What weights take on the device, within a little."""
    name = "llama-wide" if quant.endswith(("K", "XXS")) else "llama"
    path, gpu = tiny(name, "gguf", tmp_path, quant=quant), backend()
    held = gpu.device.allocated
    spec, step = open_step(path, CONTEXT, gpu, chunk=CHUNK)
    taken = gpu.device.allocated - held - step.state_bytes - step.buffer_bytes
    told = sum(weight_bytes(spec.tensors[name]) for name in spec.program.weights)
    assert abs(taken - told) < 0.1 * told + 2 * 256 * 4 * len(spec.program.weights) + 4 * spec.vocab_size * CHUNK
    step.close()


def test_ctrl_c_at_any_wait(tmp_path, monkeypatch):
    """A run that is interrupted between two stages leaves nothing mapped, and the next one is right."""
    path, gpu = tiny("qwen3moe", "gguf", tmp_path), backend(FLOATS)
    spec, whole = open_step(path, CONTEXT)
    sharing = OffloadPlanner(spec.program, target(gpu, spec))
    _, step = open_step(
        path, CONTEXT, OffloadBackend([gpu, CpuBackend(1)], cut_program(*sharing.assign(OffloadLevel(0, 2)))), chunk=CHUNK
    )
    want, wait, left = run(whole, IDS), Readback.wait, [0]

    def interrupted(results, *rest, **how):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return wait(results, *rest, **how)

    monkeypatch.setattr(Readback, "wait", interrupted)
    for number in (1, 2, 3):
        left[0] = number
        with pytest.raises(KeyboardInterrupt):
            run(step, IDS)
        np.testing.assert_allclose(run(step, IDS), want, rtol=0, atol=1e-4)
    step.close()


def test_runs_of_several_rows(tmp_path):
    """Tokens of two sequences in one run, on devices that share layers, and on ones that share experts."""
    gpu = backend(FLOATS)
    for name, level in (("llama", OffloadLevel(1)), ("qwen3moe", OffloadLevel(0, 2)), ("qwen3moe", OffloadLevel(0, 0, 2, 3))):
        path = tiny(name, "gguf", tmp_path)
        spec, whole = open_step(path, CONTEXT, rows=2)
        cache = [ExpertCacheBackend()] if level.shared else []
        program, devices = OffloadPlanner(spec.program, target(gpu, spec)).assign(level)
        shared = OffloadBackend([gpu, CpuBackend(1), *cache], cut_program(program, devices))
        step = with_pages(shared.compile(program, mapped_weights(dict(spec.tensors)), StepLimits(CONTEXT, CHUNK, 2)))
        inputs = [*IDS[:4], *IDS[:3]], [0] * 4 + [1] * 3, [*range(4), *range(3)], range(7)
        found = paged.run(step, *inputs).copy()
        np.testing.assert_allclose(found, paged.run(whole, *inputs), rtol=0, atol=1e-4, err_msg=str(level))
        np.testing.assert_allclose(found[:3], found[4:], rtol=0, atol=1e-4)
        step.close()


@pytest.mark.parametrize("kind", ["block", "odd block", "row", "experts"])
def test_sizes_of_scaled_fp8(kind, tmp_path):
    """The plan reckons with what is really there: bytes with a factor a group, or F16 where factors do not end with groups."""
    block = {"block": (64, 64), "odd block": (16, 48), "row": (1, 64), "experts": (32, 32)}[kind]
    shape = (4, 32, 64) if kind == "experts" else (32, 64)
    factors = (*shape[:-2], -(-shape[-2] // block[0]), -(-shape[-1] // block[1]))
    scales = MappedWeight("s", factors, by_name("F32"), np.ones(factors, np.float32).reshape(-1).view(np.uint8))
    data = np.full(int(np.prod(shape)), 0x38, np.uint8)
    weight, gpu = MappedWeight("w", shape, by_name("F8_E4M3"), data, (), scales, block), backend()
    for transposed in (False, True):
        uploader, before = Uploader(gpu.device), gpu.device.allocated
        try:
            matrix = uploader.matrix([weight], transposed=transposed)
            assert matrix.layout.quant == ("F8_E4M3" if kind != "odd block" and not transposed else "F16")
            assert sum(buffer.size for buffer in matrix.buffers) == weight_bytes(weight, transposed)
            for buffer in matrix.buffers:
                gpu.device.free(buffer)
        finally:
            uploader.close()
        assert gpu.device.allocated == before


@pytest.mark.parametrize("name", ["llama", "qwen3moe", "glm4moe"])
def test_the_plan_of_what_the_gpu_gets(name, tmp_path):
    """Weights, keys and values: what the device holds is what the plan says, but for the ends of buffers; and all is no more."""
    path, gpu, chunk = tiny(name, "gguf", tmp_path, quant="Q8_0"), backend(), 512
    spec, _ = open_step(path, CONTEXT)
    sharing = OffloadPlanner(spec.program, target(gpu, spec, chunk))
    chosen = [OffloadLevel(1), OffloadLevel(0, 1), OffloadLevel(0, 0, 1, 4), OffloadLevel(0, 0, 2, 1)]
    for level in [level for level in chosen if sharing.mixtures or level == OffloadLevel(1)]:
        (program, devices), before = sharing.assign(level), gpu.device.allocated
        cache = [ExpertCacheBackend()] if level.shared else []
        both = OffloadBackend([gpu, CpuBackend(1), *cache], cut_program(program, devices))
        step = with_pages(both.compile(program, mapped_weights(dict(spec.tensors)), StepLimits(CONTEXT, chunk)))
        weights = sum(buffer.size for buffer in step.steps[0].weight_buffers)
        told = sharing.load(level)
        assert abs(weights - told.weight_bytes) <= 256 * len(program.weights), level  # where buffers end
        assert step.steps[0].state_bytes == told.kv_bytes
        assert gpu.device.allocated - before <= told.nbytes
        step.close()
