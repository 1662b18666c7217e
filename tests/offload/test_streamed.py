"""Experts that a device shares with the CPU, whose own are streamed: the bits of lazy ones, and exchanges from slots in RAM."""

import itertools
import os

import numpy as np
import pytest

from lacewing.backends.batch import StepLimits
from lacewing.backends.cpu import CpuBackend
from lacewing.backends.reference.backend import ReferenceBackend
from lacewing.backends.weights import members
from lacewing.errors import Cancelled, ModelFormatError
from lacewing.formats import open_checkpoint
from lacewing.models import open_model
from lacewing.offload import rebalance
from lacewing.offload.cache import ExpertCacheBackend
from lacewing.offload.cut import cut_program
from lacewing.offload.plan import OffloadLevel, OffloadPlanner
from lacewing.offload.step import OffloadBackend
from lacewing.weights import WeightStore
from lacewing.weights.experts import SlotCount, stacks_of
from lacewing.weights.experts.layer import LayerExperts
from tests.checkpoints import tiny
from tests.models.running import MappedWeight, open_step, run
from tests.offload.splits import IDS, mixed_run
from tests.offload.test_cache import ANYTHING, NAMES
from tests.paged import with_pages

LEVELS = [OffloadLevel(shared=99, resident=2), OffloadLevel(shared=99, resident=3), OffloadLevel(host_experts=99)]


class Exchanging(ReferenceBackend):
    """With stacks of which experts can be exchanged."""

    def compile(self, *arguments):
        step = super().compile(*arguments)
        weights = step.state.weights

        def put_experts(swaps, begin):
            begin()
            for swap in swaps:
                for name, expert in swap.weights.items():
                    old = weights.weights[name]
                    rows = np.stack(members(old))
                    rows[swap.place] = expert.data
                    weights.weights = {**weights.weights, name: MappedWeight(name, old.shape, old.quant, rows.reshape(-1))}
            weights.forget()

        step.put_experts = put_experts
        return step


def opened(path, first=None, level=LEVELS[0], slots=4, residency="streamed"):
    """A step of which `first` holds some experts, by default the reference, and its weights."""
    spec = open_model(open_checkpoint(path), 32)
    program, devices = OffloadPlanner(spec.program, ANYTHING).assign(level)
    cut, store = cut_program(program, devices), WeightStore(spec.tensors)
    mixed = stacks_of(spec.program)
    store.keep(set(cut.parts[1].program.weights))
    store.slot(mixed, SlotCount(max(slots, *(active for _, active in mixed)), 4))
    store.set_residency(residency)
    backends = [first or Exchanging(), CpuBackend(2), *([ExpertCacheBackend()] if level.shared else [])]
    return with_pages(OffloadBackend(backends, cut).compile(program, store, StepLimits(32, 16))), store


def shut(*pairs):
    for step, store in pairs:
        step.close()
        store.close()


@pytest.mark.parametrize("level", LEVELS, ids=["two", "three", "none"])
@pytest.mark.parametrize("name", NAMES)
def test_streamed_is_lazy(name, level, tmp_path):
    """Bit for bit, while the same experts are on the device; whatever has come to slots before."""
    path = tiny(name, "gguf", tmp_path)
    lazy, streamed = opened(path, level=level, residency="lazy"), opened(path, level=level, slots=0)
    for _ in range(2):
        np.testing.assert_array_equal(mixed_run(streamed[0]), mixed_run(lazy[0]))
    use = streamed[1].experts.statistics
    assert use.misses and use.nbytes and bool(use.elsewhere) == bool(level.shared)
    shut(lazy, streamed)


@pytest.mark.parametrize("name", ["qwen3moe", "gpt-oss"])
def test_exchanges_between_runs(name, tmp_path, monkeypatch):
    """Experts go to the device while an answer is made, from slots alone, and the logits are right all the while."""
    monkeypatch.setattr(rebalance, "EVERY", 2)
    path = tiny(name, "gguf", tmp_path)
    (step, store), (_, whole) = opened(path), open_step(path, 32)
    held = [layer.resident.copy() for layer in step._rebalancer.manager.tier.layers]
    rows, asked = LayerExperts.rows, []
    monkeypatch.setattr(LayerExperts, "rows", lambda layer, expert: asked.append(expert) or rows(layer, expert))
    for position in range(30):
        token = [int(IDS[position % 3])]
        np.testing.assert_allclose(run(step, token, position), run(whole, token, position), rtol=0, atol=1e-4)
    use, tier = store.experts.statistics, step._rebalancer.manager.tier
    assert use.uploaded == len(asked) > 0 and use.uploaded_bytes > 0 and use.elsewhere
    assert any(not np.array_equal(before, layer.resident) for before, layer in zip(held, tier.layers, strict=True))
    assert all(layer.resident.sum() == layer.slots for layer in tier.layers)
    before, uploaded = use.misses, use.uploaded  # the same tokens again and again: what they need has settled
    for position in range(12):
        run(step, [int(IDS[position % 3])], position)
    assert use.uploaded - uploaded <= 4 and use.misses - before <= 12
    shut((step, store))
    whole.close()


def test_lazy_experts_are_not_swapped_between_runs(tmp_path, monkeypatch):
    """They would come from the disk: that waits for the next request."""
    monkeypatch.setattr(rebalance, "EVERY", 1)
    step, store = opened(tiny("qwen3moe", "gguf", tmp_path), residency="lazy")
    monkeypatch.setattr(rebalance.Rebalancer, "swap", lambda *_: pytest.fail("a swap"))
    for position in range(6):
        run(step, [5], position)
    monkeypatch.undo()
    step.rebalance()
    shut((step, store))


def test_experts_that_are_kept_stay_resident(tmp_path, monkeypatch):
    """So that runs before and after a change of residency can be compared, as `/verify` does."""
    monkeypatch.setattr(rebalance, "EVERY", 1)
    step, store = opened(tiny("qwen3moe", "gguf", tmp_path))
    step.keep_experts()
    layers = step._rebalancer.manager.tier.layers
    resident = [layer.resident.copy() for layer in layers]
    for position in range(12):
        run(step, [int(IDS[position % 3])], position)
    step.rebalance()
    assert all(np.array_equal(before, layer.resident) for before, layer in zip(resident, layers, strict=True))
    assert store.experts.statistics.uploaded == 0
    shut((step, store))


def test_residencies_change_below_a_device(tmp_path):
    """The same bits in all, and the uses that were counted are not forgotten."""
    step, store = opened(tiny("qwen3moe", "gguf", tmp_path), residency="lazy")
    expected, counted = run(step, IDS), []
    for residency in ("streamed", "lazy", "streamed", "eager", "lazy"):
        store.set_residency(residency)
        step.rebind()
        np.testing.assert_array_equal(run(step, IDS), expected)
        layer = step._rebalancer.manager.tier.layers[0]
        assert (layer.below is not None) == (residency == "streamed")
        layer.usage.look(int(layer.below.clock[0]) if layer.below else step._rebalancer.manager.tier._runs)
        counted.append(layer.usage.frequency.sum())
    assert all(later > earlier for earlier, later in itertools.pairwise(counted))
    shut((step, store))


def test_a_disk_that_fails_fails_that_run_alone(tmp_path, monkeypatch):
    path = tiny("qwen3moe", "gguf", tmp_path)
    (step, store), (lazy, mapped) = opened(path, slots=0), opened(path, residency="lazy")
    expected = run(lazy, IDS)
    preadv, broken = os.preadv, [True]

    def failing(descriptor, regions, offset):
        if broken[0]:
            raise OSError(5, "Input/output error")
        return preadv(descriptor, regions, offset)

    monkeypatch.setattr("lacewing.weights.experts.reading.os.preadv", failing)
    for _ in range(3):
        with pytest.raises(ModelFormatError, match="Input/output error"):
            run(step, IDS)
    broken[0] = False
    np.testing.assert_array_equal(run(step, IDS), expected)
    shut((step, store), (lazy, mapped))


def test_a_run_that_is_cancelled_while_it_waits_for_the_disk(tmp_path, monkeypatch):
    path = tiny("qwen3moe", "gguf", tmp_path)
    (step, store), (lazy, mapped) = opened(path, slots=0), opened(path, residency="lazy")
    expected = run(lazy, IDS)
    with monkeypatch.context() as patch:

        def waiting(part, path, check):
            step.abort()
            check()
            pytest.fail("it went on")

        patch.setattr("lacewing.weights.experts.layer.wait_for", waiting)
        with pytest.raises(Cancelled):
            run(step, IDS)
    np.testing.assert_array_equal(run(step, IDS), expected)
    shut((step, store), (lazy, mapped))
