"""A GPU that holds some experts of each layer: the logits are the processor's, before and after experts were exchanged."""

from __future__ import annotations

import numpy as np
import pytest

from lacewing.backends.batch import StepLimits
from lacewing.backends.cpu import CpuBackend
from lacewing.backends.webgpu.device.raw import Readback
from lacewing.errors import BackendError, OutOfMemoryError
from lacewing.offload.cache import ExpertCacheBackend
from lacewing.offload.cut import cut_program
from lacewing.offload.plan import OffloadLevel, OffloadPlanner
from lacewing.offload.step import OffloadBackend, OffloadStep
from lacewing.weights import WeightStore
from tests.backends.webgpu.single_ops import CODES, FLOATS, backend
from tests.checkpoints import tiny
from tests.models.running import open_step, run
from tests.offload.splits import IDS, mixed_run
from tests.offload.test_cache import ANYTHING, open_shared
from tests.paged import with_pages

CONTEXT, CHUNK = 32, 16
OTHERS = [90, 17, 44, 203, 8, 8, 8, 61]


def use(step: OffloadStep, ids=IDS) -> None:
    """Have the step run so that other experts are worth holding."""
    for layer in step._rebalancer.manager.tier.layers:
        layer.usage.counts[:] = layer.usage.frequency[:] = 0
        layer.usage.frequency[layer.slots :] = np.arange(10, 10 + layer.experts - layer.slots)


def held(step: OffloadStep) -> list[list[int]]:
    """The experts of each layer that are on the GPU."""
    return [np.flatnonzero(layer.places >= 0).tolist() for layer in step._rebalancer.manager.tier.layers]


@pytest.mark.parametrize(
    ("name", "format"),
    [("qwen3moe", "gguf"), ("gpt-oss", "gguf"), ("deepseek3", "gguf"), ("llama4", "huggingface"), ("gpt-oss", "huggingface")],
)
def test_logits_and_exchanges(name, format, tmp_path):
    """Float weights and activations. Biases, shared experts, one active expert, stacks that stand across, and both products in one
    of them, row by row; a run of many tokens, of few, of one."""
    path, gpu = tiny(name, format, tmp_path), backend(FLOATS)
    _, whole = open_step(path, CONTEXT)
    want, before = run(whole, IDS), gpu.device.allocated
    for level in (OffloadLevel(shared=1, resident=2), OffloadLevel(shared=99, resident=1), OffloadLevel(shared=99, resident=3)):
        step = open_shared(path, [gpu, CpuBackend(1)], level, CONTEXT)
        allocated = gpu.device.allocated
        np.testing.assert_allclose(mixed_run(step), want, rtol=0, atol=1e-4, err_msg=str(level))
        assert step.cache_statistics is not None and 0 < step.cache_statistics.hit_rate < 1
        first = held(step)
        use(step)
        step.rebalance()
        assert held(step) != first and [len(each) for each in held(step)] == [len(each) for each in first]
        np.testing.assert_allclose(mixed_run(step), want, rtol=0, atol=1e-4, err_msg=f"{level}, exchanged")
        many = run(step, OTHERS * 2)
        np.testing.assert_allclose(many, run(whole, OTHERS * 2), rtol=0, atol=1e-4)
        assert gpu.device.allocated == allocated
        step.close()
        assert gpu.device.allocated == before


@pytest.mark.parametrize("quant", ["F16", "Q4_0", "Q8_0", "IQ4_NL", "MXFP4"])
def test_quants(quant, tmp_path):
    """Activations as bytes on both devices; what is exchanged is what was in its place from the beginning elsewhere."""
    path, gpu = tiny("olmoe", "gguf", tmp_path, quant=quant), backend(CODES)
    step = open_shared(path, [gpu, CpuBackend(1)], OffloadLevel(shared=99, resident=7), CONTEXT)
    _, whole = open_step(path, CONTEXT)
    want = run(whole, IDS)
    for _ in range(2):
        got = run(step, IDS)
        assert ((got - want) ** 2).sum() / (want**2).sum() < 5e-3
        use(step)
        step.rebalance()
        assert held(step)[0] == [expert for expert in range(8) if expert != held_out(step)]
    step.close()


def held_out(step: OffloadStep) -> int:
    (only,) = np.flatnonzero(step._rebalancer.manager.tier.layers[0].places < 0)
    return int(only)


def test_an_exchanged_expert_is_bitwise_itself(tmp_path):
    """Experts that all come to other places than those they began in give the same numbers."""
    path, gpu = tiny("gpt-oss", "gguf", tmp_path, quant="Q8_0"), backend(CODES)
    step = open_shared(path, [gpu, CpuBackend(1)], OffloadLevel(shared=99, resident=5), CONTEXT)
    first = run(step, IDS)
    for layer in step._rebalancer.manager.tier.layers:  # 5 comes for 0, then 0 comes for 1, then 1 for 5
        assert layer.experts == 6
    for favourite, victim in ((5, 0), (0, 1), (1, 5)):
        for layer in step._rebalancer.manager.tier.layers:
            layer.usage.counts[:], layer.usage.frequency[:] = 0, 100
            layer.usage.frequency[victim] = 1
        step.rebalance()
        assert all(victim not in each and favourite in each for each in held(step))
    assert held(step) == [[0, 1, 2, 3, 4]] * 4 and step._rebalancer.manager.tier.layers[0].places[:2].tolist() != [0, 1]
    assert np.array_equal(run(step, IDS), first)
    step.close()


def test_residency_changes_below(tmp_path):
    """Experts come from wherever the weights are; the processor has all of them."""
    path = tiny("qwen3moe", "gguf", tmp_path, quant="Q4_0")
    spec, _ = open_step(path, CONTEXT)
    weights = WeightStore(spec.tensors)
    program, devices = OffloadPlanner(spec.program, ANYTHING).assign(OffloadLevel(shared=2, resident=4))
    parts = cut_program(program, devices)
    backends = [backend(), CpuBackend(1), ExpertCacheBackend()]
    step = with_pages(OffloadBackend(backends, parts).compile(program, weights, StepLimits(CONTEXT, CHUNK)))
    weights.keep(set(parts.parts[1].program.weights))
    first = run(step, IDS)
    weights.set_residency("eager")
    step.rebind()
    assert np.array_equal(run(step, IDS), first)
    use(step)
    step.rebalance()
    weights.set_residency("lazy")
    step.rebind()
    moved = run(step, IDS)
    assert ((moved - first) ** 2).sum() / (first**2).sum() < 5e-3 and held(step) == [[4, 5, 6, 7]] * 2
    step.close()
    weights.close()


def test_memory_that_ends_or_a_device_that_fails(tmp_path, monkeypatch):
    """Nothing is exchanged and nothing leaks; or what was on its way is the processor's, and the logits are right."""
    path, gpu = tiny("qwen3moe", "gguf", tmp_path), backend(FLOATS)
    _, whole = open_step(path, CONTEXT)
    want = run(whole, IDS)
    step = open_shared(path, [gpu, CpuBackend(1)], OffloadLevel(shared=2, resident=3), CONTEXT)
    run(step, IDS)
    before, allocated = held(step), gpu.device.allocated
    use(step)
    with monkeypatch.context() as patch:

        def full(size, label, usage=None):
            raise OutOfMemoryError("the GPU has no memory left")

        patch.setattr(gpu.device, "buffer", full)
        step.rebalance()
    assert held(step) == before and "no memory left" in str(step.cache_statistics) and gpu.device.allocated == allocated
    use(step)
    with monkeypatch.context() as patch:
        tries = []

        def refill(uploader, *arguments):
            tries.append(arguments)
            if len(tries) > 3:
                raise BackendError("the GPU was lost")

        patch.setattr("lacewing.backends.webgpu.weights.matrices.Uploader.refill", refill)
        with pytest.raises(BackendError, match="lost"):
            step.rebalance()
    assert gpu.device.allocated == allocated and held(step) == [[], []]
    np.testing.assert_allclose(run(step, IDS), want, rtol=0, atol=1e-4)  # all on the CPU
    use(step)
    step.rebalance()
    assert [len(each) for each in held(step)] == [3, 3] and not step.cache_statistics.problem
    np.testing.assert_allclose(run(step, IDS), want, rtol=0, atol=1e-4)
    step.close()


def test_what_a_gpu_can_hold_some_of(tmp_path):
    """Experts that are whole runs of 256 values, without factors."""
    gpu = backend()
    spec, _ = open_step(tiny("qwen3moe", "gguf", tmp_path), CONTEXT)
    stack = spec.tensors["blk.0.ffn_up_exps.weight"]
    assert gpu.holds_some(stack, False) and gpu.holds_some(stack, True)

    class TensorSpec:
        shape, quant, scales, scale_block = (4, 3, 32), stack.quant, None, (1, 1)

    assert not gpu.holds_some(TensorSpec(), False)
    assert gpu.holds_some(type("Eight", (TensorSpec,), {"shape": (4, 8, 32)})(), False)
    assert not gpu.holds_some(type("Scaled", (TensorSpec,), {"shape": (4, 8, 32), "scales": "s"})(), False)


@pytest.mark.parametrize("count", [1, 11])
def test_nobody_waits_for_held_experts(count, tmp_path, monkeypatch):
    """The host waits for the trunk of each layer and for the logits, not for the experts that the GPU computes beside it."""
    path, gpu, waits = tiny("qwen3moe", "gguf", tmp_path), backend(FLOATS), []
    step = open_shared(path, [gpu, CpuBackend(1)], OffloadLevel(shared=2, resident=3), CONTEXT)
    wait = Readback.wait
    monkeypatch.setattr(Readback, "wait", lambda results, *rest, **how: waits.append(rest) or wait(results, *rest, **how))
    run(step, IDS[:count])
    assert len(waits) == 2 + 1
    schedule = [turn.device for turn in step.cut.schedule]
    assert schedule == [
        1,
        0,
        *[2, 0, 1, 0] * 2,
    ]  # embedding, trunk; who computes what, resident ones, the others, the trunk
    step.close()
