"""Experts of a layer on two devices: the logits are those of one, whatever is resident; and what is used more is swapped in."""

from __future__ import annotations

import numpy as np
import pytest

from lacewing.backends.batch import Batch, StepLimits
from lacewing.backends.cpu import CpuBackend
from lacewing.backends.cpu.step import CpuStep
from lacewing.backends.reference.backend import ReferenceBackend
from lacewing.backends.weights import CacheStatistics, ResidentExperts
from lacewing.errors import BackendError, OptionError, OutOfMemoryError
from lacewing.offload.cache import ExpertCacheBackend, ExpertCacheManager
from lacewing.offload.cut import cut_program
from lacewing.offload.plan import DeviceLoad, OffloadLevel, OffloadPlanner, Target
from lacewing.offload.rebalance import REQUEST_SWAP_BYTES, Rebalancer
from lacewing.offload.step import OffloadBackend, OffloadStep
from lacewing.program.ops import Buffer, Dispatch, Receive, Send
from lacewing.program.program import Program
from lacewing.quants import by_name
from lacewing.weights.experts.policy import HALF_LIFE
from tests import mixtures
from tests.checkpoints import tiny
from tests.models.running import MappedWeight, mapped_weights, open_step, run
from tests.offload.splits import IDS, mixed_run
from tests.paged import with_pages

ANYTHING = Target(lambda part: DeviceLoad(0, 0, 0), frozenset(range(99)))
NAMES = ["qwen3moe", "gpt-oss", "deepseek3", "llama4", "mixtral"]


def open_shared(path, backends, level, context=32):
    """A model whose first layers share their experts, the cache manager included."""
    spec, _ = open_step(path, context)
    program, devices = OffloadPlanner(spec.program, ANYTHING).assign(level)
    backend = OffloadBackend([*backends, ExpertCacheBackend()], cut_program(program, devices))
    step = backend.compile(program, mapped_weights(dict(spec.tensors)), StepLimits(context, 16))
    assert isinstance(step, OffloadStep)
    return with_pages(step)


@pytest.mark.parametrize("name", NAMES)
def test_logits(name, tmp_path):
    """Some layers or all, most of their experts or one; biases, shared experts, weights on the input, groups."""
    path = tiny(name, "gguf", tmp_path)
    _, whole = open_step(path, 32)
    want = run(whole, IDS)
    for level in (OffloadLevel(shared=1, resident=2), OffloadLevel(shared=99, resident=1), OffloadLevel(shared=99, resident=99)):
        for backends in ([ReferenceBackend(), CpuBackend(2)], [CpuBackend(1), ReferenceBackend()]):
            step = open_shared(path, backends, level)
            np.testing.assert_allclose(mixed_run(step), want, rtol=0, atol=1e-4, err_msg=str(level))
            assert step.cache_statistics is not None and 0 < (step.cache_statistics.hit_rate or 0) < 1
            step.close()


@pytest.mark.slow
@pytest.mark.parametrize("format", ["gguf", "huggingface"])
@pytest.mark.parametrize("name", mixtures.CASES)
def test_every_mixture(name, format, tmp_path):
    if format == "gguf" and name in mixtures.ONLY_HUGGINGFACE:
        return  # nothing that a file could say
    path = tiny(name, format, tmp_path)
    _, whole = open_step(path, 32)
    step = open_shared(path, [ReferenceBackend(), CpuBackend(2)], OffloadLevel(shared=99, resident=2))
    np.testing.assert_allclose(mixed_run(step), run(whole, IDS), rtol=0, atol=1e-4)
    step.close()


def test_who_computes_what_changes_no_bit_of_the_others(tmp_path):
    """On the CPU alone: the same experts, the same products; only the sum of two sums may round otherwise."""
    path = tiny("qwen3moe", "gguf", tmp_path, quant="Q8_0")
    _, whole = open_step(path, 32, CpuBackend(2), chunk=16)
    step = open_shared(path, [CpuBackend(1), CpuBackend(2)], OffloadLevel(shared=2, resident=3))
    np.testing.assert_allclose(run(step, IDS), run(whole, IDS), rtol=0, atol=2e-2)  # bytes of activations may round otherwise
    kept = whole.read(0, [0])
    step.write(0, [0], kept)
    assert np.array_equal(step.read(0, [0]), kept)
    step.close()
    whole.close()


def test_routers_that_are_watched(tmp_path):
    path = tiny("glm4moe", "gguf", tmp_path)
    _, whole = open_step(path, 32)
    step = open_shared(path, [ReferenceBackend(), CpuBackend(1)], OffloadLevel(shared=1, resident=4))
    for each in (whole, step):
        each.watch_routes(True)
        run(each, IDS)
    assert [routed.layer for routed in step.routes()] == [routed.layer for routed in whole.routes()] != []
    for found, wanted in zip(step.routes(), whole.routes(), strict=True):
        assert np.array_equal(found.ids, wanted.ids)
    step.close()


def test_infinite_scores_reach_the_logits(tmp_path):
    """A router that is broken gives NaN as weights, whoever has the experts."""
    path = tiny("qwen3moe", "gguf", tmp_path)
    spec, _ = open_step(path, 32)
    weights = mapped_weights(dict(spec.tensors))
    name = "blk.1.ffn_gate_inp.weight"
    broken = np.full(weights[name].shape, np.inf, np.float32)
    weights[name] = MappedWeight(name, weights[name].shape, weights[name].quant, broken.reshape(-1).view(np.uint8))
    program, devices = OffloadPlanner(spec.program, ANYTHING).assign(OffloadLevel(shared=2, resident=5))
    backend = OffloadBackend([ReferenceBackend(), CpuBackend(1), ExpertCacheBackend()], cut_program(program, devices))
    step = with_pages(backend.compile(program, weights, StepLimits(32, 16)))
    assert np.isnan(run(step, IDS)).all()
    step.close()


class Device:
    """Takes experts, and remembers which; or has no memory, or is lost half way."""

    def __init__(self):
        self.held, self.full, self.lost = {}, False, 99

    def put_experts(self, swaps, begin):
        if self.full:
            raise OutOfMemoryError("the device is full")
        begin()
        for index, swap in enumerate(swaps):
            if index == self.lost:
                raise BackendError("the device was lost")
            for name, weight in swap.weights.items():
                self.held[name, swap.place] = int(weight.data[0])


EXPERTS, ACTIVE = 8, 2
NUMBERED = MappedWeight("w", (EXPERTS, 1, 4), by_name("F32"), np.arange(EXPERTS, dtype=np.uint8).repeat(16))


def manager(layers=1, resident=3):
    """A cache manager, and a rebalancer with the weights of its layers: each byte of an expert is its number."""
    ids, here, there = (Buffer(name, ACTIVE).view() for name in ("ids", "here", "there"))
    stage = (Receive((ids,)), Dispatch(ids, here, there, EXPERTS, resident), Send((there, here)))
    step = ExpertCacheBackend().compile(Program(stage * layers, {}, (), 9), {}, StepLimits(1024, 1024))
    return step, Rebalancer(step, Device(), [{f"w{layer}": NUMBERED} for layer in range(layers)])


def swap_in(rebalancer, most=REQUEST_SWAP_BYTES):
    """As between two requests; how many experts came."""
    found = rebalancer.swap(most)
    rebalancer.manager.forget_statistics()
    return found


def choose(step, *rows, layer=0):
    """Who computes what, in the manager's words: (here, there)."""
    ids = np.array(rows, np.int32)
    step.begin(Batch.of([0] * len(ids), 0, []))
    there, here = (each.view(np.int32) for each in step.stage(layer, [ids.view(np.float32)]))
    return here.tolist(), there.tolist()


def test_the_manager_divides():
    step, _ = manager()
    assert choose(step, [0, 7], [3, 2]) == ([[0, -1], [-1, 2]], [[-1, 7], [3, -1]])
    assert step.statistics == CacheStatistics(1, 3, EXPERTS, 0.5)
    assert str(step.statistics).startswith("on the GPU: 3 of 8 experts of the layer, hit rate 50%")
    with pytest.raises(BackendError, match="in stages"):
        step.run(Batch.of([0], 0, []))


def test_what_is_used_more_becomes_resident():
    step, rebalancer = manager()
    device = rebalancer.device
    assert swap_in(rebalancer) == 0 and step.statistics.hit_rate is None  # nothing has been chosen
    choose(step, *[[6, 1]] * 4, [5, 0], [0, 6])
    assert swap_in(rebalancer) == 1  # 6 for 2, which nobody chose; not 5 for 0, which is used more
    assert device.held == {("w0", 2): 6}
    assert choose(step, [6, 2], [0, 1]) == ([[2, -1], [0, 1]], [[-1, 2], [-1, -1]])


def test_little_more_is_no_reason():
    step, rebalancer = manager(resident=1)
    device = rebalancer.device
    choose(step, *[[0, 5]] * 4, [5, 1])
    assert swap_in(rebalancer) == 0  # 5 against 4
    choose(step, *[[5, 7]] * 8)
    assert swap_in(rebalancer) == 1 and device.held == {("w0", 0): 5}


def test_what_was_long_ago_counts_less():
    step, rebalancer = manager(resident=1)
    device = rebalancer.device
    for _ in range(HALF_LIFE):
        choose(step, [5, 6])
    assert swap_in(rebalancer) == 1 and device.held == {("w0", 0): 5}
    for _ in range(HALF_LIFE * 7 // 8):
        choose(step, [7, 4])
    assert swap_in(rebalancer) == 1 and device.held == {("w0", 0): 4}  # as often as 7, and the lower id


def test_the_best_come_first_where_not_all_may():
    step, rebalancer = manager(layers=2)
    device = rebalancer.device
    choose(step, *[[5, 6]] * 3)
    choose(step, *[[7, 3]] * 9, layer=1)
    assert swap_in(rebalancer, 2 * 16) == 2 and {name for name, _ in device.held} == {"w1"}
    assert swap_in(rebalancer, 2 * 16) == 2 and {name for name, _ in device.held} == {"w0", "w1"}


def test_a_swap_in_that_fails():
    """Without memory nothing changes; what is lost on the way is computed by the other device, and comes again later."""
    step, rebalancer = manager()
    device = rebalancer.device
    choose(step, *[[5, 6]] * 9, *[[7, 0]] * 3)
    device.full = True
    with pytest.raises(OutOfMemoryError):
        swap_in(rebalancer)
    assert choose(step, [2, 6]) == ([[2, -1]], [[-1, 6]])
    device.full, device.lost = False, 1
    with pytest.raises(BackendError, match="lost"):
        swap_in(rebalancer)
    here, there = choose(step, [5, 6], [7, 0], [1, 2])
    assert here == [[-1, -1], [-1, 0], [-1, -1]] and there == [[5, 6], [7, -1], [1, 2]]
    device.lost = 99
    assert swap_in(rebalancer) == 2
    here, there = choose(step, [5, 6], [7, 0])
    assert here[0] != [-1, -1] and sorted(here[0]) == [1, 2] and there == [[-1, -1], [7, -1]]


def test_a_step_goes_on_without_memory_for_a_swap_in(tmp_path, monkeypatch):
    class Full(ReferenceBackend):
        def compile(self, *arguments):
            step = super().compile(*arguments)
            step.put_experts = Device().put_experts
            return step

    step = open_shared(tiny("qwen3moe", "gguf", tmp_path), [Full(), CpuBackend(1)], OffloadLevel(shared=2, resident=2))
    run(step, IDS)
    before = str(step.cache_statistics)

    def full(swaps, begin):
        raise OutOfMemoryError("no memory left")

    step._rebalancer.device.put_experts = full
    step.rebalance()
    assert "nothing was changed: no memory left" in str(step.cache_statistics) and "nothing" not in before
    step.close()
    for use in (step.rebalance, lambda: run(step, IDS)):
        with pytest.raises(OptionError, match="closed"):
            use()


@pytest.mark.parametrize("count", [1, 3])
def test_a_layer_whose_experts_are_all_resident_leaves_the_other_device_alone(count, tmp_path, monkeypatch):
    """A token takes some of 8, and 6 are resident: of each layer either some are left for the CPU, or none."""
    path = tiny("qwen3moe", "gguf", tmp_path)
    _, whole = open_step(path, 32)
    step = open_shared(path, [ReferenceBackend(), CpuBackend(1)], OffloadLevel(shared=99, resident=6))
    needed, done = [], []
    dispatch, compute = ExpertCacheManager.stage, CpuStep.stage

    def dispatchted(manager, index, received):
        found = dispatch(manager, index, received)
        needed.append((found[1].view(np.int32) >= 0).any())
        return found

    monkeypatch.setattr(ExpertCacheManager, "stage", dispatchted)
    monkeypatch.setattr(CpuStep, "stage", lambda one, index, received: done.append(index) or compute(one, index, received))
    for token in range(8):
        ids = [token * 31 % 300] * count
        np.testing.assert_allclose(run(step, ids), run(whole, ids), rtol=0, atol=1e-4)
    assert {bool(each) for each in needed} == {True, False}
    assert len([index for index in done if index > 0]) == sum(needed)
    step.close()


def test_a_cache_manager_is_no_device_for_more():
    ids, here, there = (Buffer(name, ACTIVE).view() for name in ("ids", "here", "there"))
    dispatch = Dispatch(ids, here, there, EXPERTS, 2)
    with pytest.raises(BackendError, match="only dispatches experts"):
        ExpertCacheManager(Program((Receive((ids,)), dispatch, dispatch, Send((here,))), {}, (), 9), StepLimits(16))


def test_resident_experts():
    """Whether they lie together or apart; factors of blocks do not come along, so that they are refused."""
    apart = MappedWeight("w", (3, 1, 4), by_name("F32"), np.empty(0, np.uint8), tuple(np.full(16, i, np.uint8) for i in range(3)))
    for weight in (NUMBERED, apart):
        found = ResidentExperts("w (resident)", weight, [2, 0])
        assert found.shape == (2, 1, 4) and found.data.tolist() == [2] * 16 + [0] * 16 and len(found.parts) == 2
    scaled = MappedWeight("w", (3, 1, 4), by_name("F8_E4M3"), np.zeros(12, np.uint8), scales=apart)
    with pytest.raises(BackendError, match="apart from their factors"):
        ResidentExperts("w (resident)", scaled, [0])
